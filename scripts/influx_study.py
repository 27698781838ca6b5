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
import dataclasses
import importlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.folder import Record, read_folder
from jaxgear.data.labels import Correction, append
from jaxgear.errors import UsageError
from jaxgear.evaluation.acquisition import choose, find_candidates
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.network_features import Network
from jaxgear.experiment import Config
from jaxgear.experiment.flags import parse
from jaxgear.files import write_text
from jaxgear.outputs import Output, outputs
from jaxgear.paths import path_argument
from jaxgear.prediction.proposals.cropping import predict_crops
from jaxgear.prediction.tables import CropsTable
from scripts import outdoor_test
from scripts.acquisition import halves_by_photograph, photograph_of
from scripts.studies.influx import (
    DOMAINS,
    NAN,
    NONE,
    ORDERS,
    PROPOSED,
    Point,
    Training,
    draw,
    from_csv,
    lines,
    mean_recall,
    tested,
    to_csv,
)

SIZE = 64  # pixels at which crops are only checked


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
