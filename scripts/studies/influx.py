"""The table of scripts/influx_study.py: what each run was trained on and reached; its curves."""

import contextlib
import csv
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgear import text
from jaxgear.bundle import Bundle
from jaxgear.evaluation.metrics import Tested, per_class
from jaxgear.evaluation.plots import figures as plots
from jaxgear.prediction import Predictor, open_labelled

DOMAINS = ("catalogue", "composites", "wild")
NONE, ORDERS = "none", ("random", "next")
PROPOSED = 2  # of `Training.unlabelled`
KINDS = ("without", "with", "proposed")  # of pictures without labels
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
    return text.to_csv([Point._fields, *points])


def from_csv(table: str) -> list[Point]:
    """The inverse of `to_csv`."""
    types = Point.__annotations__.values()
    _, *rows = csv.reader(io.StringIO(table))
    return [Point(*(kind(value) for kind, value in zip(types, row, strict=True))) for row in rows]


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
