"""What labels, and pictures without labels, gain on crops of outdoor photographs.

    python -m scripts.influx_study GEAR WILD PHOTOGRAPHS OUT -- transfer --weights FILE

WILD has crops of gear in photographs (<class>/PHOTO_NUMBER.jpg), PHOTOGRAPHS whole photographs. For
each seed, the crops of half of WILD's photographs are the pool, and the others the test half: no
photograph is in both. Photographs that have crops are no backgrounds. The labels of the pool are
hidden, then given in rounds: in the order of `jaxgear next`, or at random. After each round the
experiment (its name and flags follow `--`) trains anew, without the rest of the pool and with it
(`--unlabelled`). With `--proposals N`, the run without labels also proposes N crops of each whole
photograph of the pool, and the experiment trains with those as `--unlabelled`: nobody has cut or
labelled anything then. Each run is tested on the catalogue, on composites of the catalogue's test
split, and on the test half.

A row of OUT/study.csv is one run on one domain. A second start goes on where the first one ended.
OUT holds copies of your photographs, so do not commit it.
"""

import argparse
import contextlib
import csv
import dataclasses
import importlib
import io
import math
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.folder import Record, read_folder
from jaxgear.data.labels import Correction, append
from jaxgear.errors import UsageError
from jaxgear.evaluation.acquisition import choose, find_candidates
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.metrics import Tested, per_class
from jaxgear.evaluation.network_features import Network
from jaxgear.experiment import Config
from jaxgear.experiment.flags import parse
from jaxgear.files import write_text
from jaxgear.outputs import Output, outputs
from jaxgear.paths import path_argument
from jaxgear.prediction import Predictor, open_labelled
from jaxgear.prediction.proposals.cropping import predict_crops
from jaxgear.prediction.tables import CropsTable
from scripts import outdoor_test
from scripts.acquisition import halves_by_photograph, photograph_of

DOMAINS = ("catalogue", "composites", "wild")
NONE, ORDERS = "none", ("random", "next")
PROPOSED = 2  # of `Training.unlabelled`
KINDS = ("without", "with", "proposed")  # of pictures without labels
SIZE = 64  # pixels at which crops are only checked
NAN = math.nan


class Training(NamedTuple):
    """What a run was trained on, besides the catalogue."""

    seed: int
    order: str  # of the labels
    labels: int  # crops of the pool with their labels; a smaller pool gives all
    unlabelled: int  # 1: the rest of the pool without labels; 2: crops proposed in its photographs

    @property
    def name(self) -> str:
        return f"{self.order}-{self.labels}{('', '-unlabelled', '-proposed')[self.unlabelled]}"


class Point(NamedTuple):
    """A run, tested on a domain: a row of the table."""

    seed: int
    order: str
    labels: int
    unlabelled: int
    domain: str
    accuracy: float
    recall: float  # mean over the classes of the test pictures
    n: int
    used: float  # share of the pictures without labels; NaN: there are none
    right: float  # share of their pseudo-labels

    @property
    def training(self) -> Training:
        return Training(*self[:4])


def to_csv(points: Iterable[Point]) -> str:
    """CSV with a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Point._fields, *points])
    return text.getvalue()


def from_csv(text: str) -> list[Point]:
    """The inverse of `to_csv`."""
    types = Point.__annotations__.values()
    _, *rows = csv.reader(io.StringIO(text))
    return [Point(*(kind(value) for kind, value in zip(types, row, strict=True))) for row in rows]


class Halves:
    """The crops of a seed, copied to two folders."""

    def __init__(self, wild: Path, place: Path, seed: int):
        crops = read_folder(wild, size=SIZE, min_classes=1).records
        pool, test = halves_by_photograph([record.path for record in crops], seed)
        self.crops = [crops[row].path for row in pool]  # of the pool
        self.pool, self.test = place / "pool", place / "test"
        for folder, rows in ((self.pool, pool), (self.test, test)):
            shutil.rmtree(folder, ignore_errors=True)
            for record in (crops[row] for row in rows):
                file = folder / record.path
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(wild / record.path, file)

    def added(self, path: str) -> Correction:
        """The row that gives a crop of the pool its label."""
        name = Path(path).parent.name
        return Correction(
            str(self.pool / path), "", "add", name, "study", "2026-01-01T00:00:00+00:00"
        )


def backgrounds(wild: Path, photographs: Path, out: Path) -> Path:
    """A folder of the photographs that have no crops."""
    if not out.exists():
        crops: tuple[Record, ...] = read_folder(wild, size=SIZE, min_classes=1).records
        known = {photograph_of(record.path) for record in crops}
        out.mkdir(parents=True)
        for file in sorted(photographs.iterdir()):
            if file.stem not in known:
                shutil.copy(file, out / file.name)
    return out


def tested(bundle: Bundle, source: Path) -> tuple[float, float, int]:
    """Accuracy, mean recall over the classes that the folder has, and number of pictures."""
    with contextlib.redirect_stderr(io.StringIO()):  # warns of classes without crops
        split = open_labelled(str(source), bundle, "skip")
    found = Tested(Predictor(bundle).logits(split.images), split.labels)
    return (
        found.right / len(split.labels),
        mean_recall(per_class(found.confusion)),
        len(split.labels),
    )


def mean_recall(rows: Iterable[dict[str, float]]) -> float:
    """Over the classes that have pictures."""
    return float(np.mean([row["recall"] for row in rows if row["n"]]))


class Study:
    """The runs in OUT, and the points of them."""

    def __init__(self, arguments: argparse.Namespace, name: str, *flags: str):
        try:
            self.experiment = importlib.import_module(f"experiments.{name}")
        except ModuleNotFoundError as error:
            raise UsageError(f"-- {name}: no experiment of that name") from error
        self.config: Config = parse(self.experiment.Config, flags)
        self.gear, self.wild, self.out = arguments.gear, arguments.wild, arguments.out
        self.photographs, self.proposals = arguments.photographs, arguments.proposals
        self.backgrounds = backgrounds(self.wild, arguments.photographs, self.out / "backgrounds")
        self.file = self.out / "study.csv"
        self.named: dict[Path, list[str]] = {}  # by run, what `next` names
        self.points = from_csv(self.file.read_text()) if self.file.exists() else []

    def up_to(self, rounds: int, seed: int, count: int, orders: Iterable[str]) -> None:
        """Trains and tests the runs of a seed, up to a round of labels."""
        halves = Halves(self.wild, self.out / str(seed), seed)
        for unlabelled in (0, 1):
            first = self.run(halves, Training(seed, NONE, 0, unlabelled), [])
            for order in orders:
                run, given = first, []
                mixed = np.random.default_rng(seed).permutation(halves.crops).tolist()
                for number in range(1, rounds + 1):
                    if order == "random":
                        given = mixed[: len(given) + count]
                    else:
                        given = given + self.next_crops(run, halves, given, count)
                    if unlabelled and len(given) == len(halves.crops):
                        break  # the pool has no picture left without a label
                    run = self.run(halves, Training(seed, order, number * count, unlabelled), given)
        if self.proposals:
            self.run(halves, Training(seed, NONE, 0, PROPOSED), [])

    def next_crops(self, run: Path, halves: Halves, given: list[str], count: int) -> list[str]:
        """The crops of the pool that `jaxgear next` names, at most `count`."""
        if run not in self.named:
            network = Network.load(run)
            rest = [halves.pool / path for path in halves.crops if path not in given]
            chosen = choose(network, find_candidates(rest, network.bundle).folder, count)
            paths = [Path(one.record.path).relative_to(halves.pool) for one in chosen]
            self.named[run] = [str(path) for path in paths]
        return self.named[run]

    def proposed(self, halves: Halves) -> Path:
        """The table of crops that the run without labels proposes in the pool's photographs."""
        (run,) = halves.pool.with_name(Training(0, NONE, 0, 0).name).iterdir()
        bundle = Bundle.load(run).accepting(1)  # whether a crop is gear, `--unlabelled` finds out
        names = {photograph_of(path) for path in halves.crops}
        files = [file for file in sorted(self.photographs.iterdir()) if file.stem in names]
        file = halves.pool.with_name("proposed.csv")
        with Output("--csv", file) as output:
            table = CropsTable(output, bundle.classes)
            for photograph in predict_crops(bundle, files, self.proposals):
                for crop in photograph.predictions:
                    table.add(crop)
        return file

    def run(self, halves: Halves, training: Training, given: list[str]) -> Path:
        """The run folder, trained and tested now unless the table has it."""
        place = halves.pool.with_name(training.name)
        if any(point.training == training for point in self.points):
            (run,) = place.iterdir()
            return run
        shutil.rmtree(place, ignore_errors=True)
        labels = place.with_suffix(".csv")
        labels.unlink(missing_ok=True)
        if given:
            append(labels, [halves.added(path) for path in given])
        config = dataclasses.replace(
            self.config,
            data=str(self.gear),
            backgrounds=str(self.backgrounds),
            labels=str(labels) if given else "",
            unlabelled=self.unlabelled(halves, training),
            seed=training.seed,
            out=str(place),
        )
        run = self.experiment.main(config)
        jax.clear_caches()  # compiled programs of a run are of no use to the next one
        self.points += self.points_of(halves, training, run)
        write_text(self.file, to_csv(self.points))
        return run

    def unlabelled(self, halves: Halves, training: Training) -> str:
        """`--unlabelled` of a run."""
        if training.unlabelled == PROPOSED:
            return str(self.proposed(halves))
        return str(halves.pool) if training.unlabelled else ""

    def points_of(self, halves: Halves, training: Training, run: Path) -> Iterator[Point]:
        """The run on each domain."""
        finished, bundle = FinishedRun.read(run), Bundle.load(run)
        composites = halves.pool.with_name("composites")
        if not composites.exists():
            outdoor_test.build(run, self.backgrounds, composites, "test", "", training.seed)
        test, last = finished.test, finished.rows[-1]
        pseudo = (NAN, NAN) if last.pseudo_used is None else (last.pseudo_used, last.pseudo_right)
        catalogue = (test["accuracy"], mean_recall(test["per_class"].values()), test["n"])
        others = (tested(bundle, folder) for folder in (composites, halves.test))
        for domain, figures in zip(DOMAINS, (catalogue, *others), strict=True):
            yield Point(*training, domain, *figures, *pseudo)


def curve(points: list[Point], domain: str, order: str, unlabelled: int, field: str):
    """Number of labels -> values by seed, where all seeds have some.

    Means over other seeds are no curve: a pool may have no picture left without a label.
    """
    values: dict[int, list[float]] = {}
    for point in points:
        if (point.domain, point.unlabelled) == (domain, unlabelled) and point.order in (
            order,
            NONE,
        ):
            values.setdefault(point.labels, []).append(getattr(point, field))
    most = max(map(len, values.values()), default=0)
    return {labels: own for labels, own in sorted(values.items()) if len(own) == most}


def lines(points: list[Point]) -> Iterator[str]:
    """A table: mean and standard deviation over seeds, and the gain over no labels."""
    yield f"{'domain':11}{'order':8}{'labels':>7} {'unlabelled':11}{'accuracy':>16}{'recall':>16}"
    for domain in DOMAINS:
        base = curve(points, domain, NONE, 0, "accuracy").get(0, [NAN])
        for unlabelled, kind in enumerate(KINDS):
            for order in dict.fromkeys(p.order for p in points if p.unlabelled == unlabelled):
                both = [
                    curve([p for p in points if p.order == order], domain, order, unlabelled, field)
                    for field in ("accuracy", "recall")
                ]
                for labels, values in both[0].items():
                    figures = "".join(
                        f"{np.mean(of):9.3f} ± {np.std(of, ddof=1) if len(of) > 1 else 0:.3f}"
                        for of in (values, both[1][labels])
                    )
                    gain = f"  {np.mean(values) - np.mean(base):+.3f}"
                    yield f"{domain:11}{order:8}{labels:7d} {kind:11}{figures}{gain}"


def draw(points: list[Point]) -> bytes:
    """Accuracy and mean recall against labels, a panel for each domain, as PNG."""
    from jaxgear.evaluation.plots import figures as plots

    figure = plots.Figure(figsize=(14, 7.2), layout="constrained")
    panels = figure.subplots(2, len(DOMAINS))
    colours = {"random": "black", "next": "#b3261e"}
    for row, field in zip(panels, ("accuracy", "recall"), strict=True):
        for axes, domain in zip(row, DOMAINS, strict=True):
            for order, colour in colours.items():
                for unlabelled, style in ((0, "-"), (1, "--")):
                    of = curve(points, domain, order, unlabelled, field)
                    mean = [float(np.mean(values)) for values in of.values()]
                    label = f"{order}, {'with' if unlabelled else 'without'} unlabelled pictures"
                    axes.plot(list(of), mean, style, color=colour, marker="o", label=label)
                    if not unlabelled:
                        spread = np.array([np.std(values) for values in of.values()])
                        axes.fill_between(
                            *(list(of), mean - spread, mean + spread), color=colour, alpha=0.08
                        )
            plots.describe(axes, "labels of crops", "mean recall" if field == "recall" else field)
            axes.set_title(domain, fontsize=10)
    handles = panels[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return plots.png(figure)


def main(arguments: argparse.Namespace, experiment: list[str]) -> None:
    """Runs the study of an experiment, its name and flags, and prints its table."""
    if not experiment:
        raise UsageError("name an experiment and its flags after --")
    with outputs({"--plot": arguments.plot}) as files:
        study = Study(arguments, *experiment)
        for rounds in range(arguments.rounds + 1):  # so that all seeds have the first rounds soon
            for seed in range(arguments.seeds):
                study.up_to(rounds, seed, arguments.count, arguments.order)
        print("\n".join(lines(study.points)), flush=True)
        if "--plot" in files:
            files["--plot"].write(draw(study.points))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gear", type=path_argument)
    parser.add_argument("wild", type=path_argument)
    parser.add_argument("photographs", type=path_argument)
    parser.add_argument("out", type=path_argument)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--count", type=int, default=24, help="labels of a round")
    parser.add_argument(
        "--proposals",
        type=int,
        default=0,
        metavar="N",
        help="also learn from N crops proposed in each photograph of the pool",
    )
    parser.add_argument("--order", nargs="+", default=list(ORDERS), choices=ORDERS)
    parser.add_argument("--plot", type=path_argument, help="accuracy and recall against labels")
    own = sys.argv[1:]
    split = own.index("--") if "--" in own else len(own)
    arguments = parser.parse_args(own[:split])
    exit_with(lambda: main(arguments, own[split + 1 :]))
