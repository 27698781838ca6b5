"""The table of scripts/acquisition.py: what each strategy reached with its labels; its curves."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxgear.evaluation.plots import figures as plots

MEASURED = ("accuracy", "recall")
THICK = {"random": "black", "margin x spread": "#b3261e"}  # of the plot


class Point(NamedTuple):
    """What a classifier reaches after a number of labels."""

    domain: str
    strategy: str
    seed: int
    labels: int
    accuracy: float
    recall: float  # mean over the classes of the test pictures


def needed(curve: dict[int, float], target: float) -> float:
    """The number of labels with which a curve first reaches a target, interpolated; else inf."""
    before = None
    for labels, value in sorted(curve.items()):
        if value >= target:
            if before is None:
                return float(labels)
            fewer, lower = before
            return fewer + (labels - fewer) * (target - lower) / (value - lower)
        before = labels, value
    return float("inf")


def mean_curve(points: list[Point], domain: str, strategy: str, name: str) -> dict[int, float]:
    """Number of labels -> mean over seeds of `accuracy` or `recall`."""
    values: dict[int, list[float]] = {}
    for point in points:
        if (point.domain, point.strategy) == (domain, strategy):
            values.setdefault(point.labels, []).append(getattr(point, name))
    return {labels: float(np.mean(own)) for labels, own in values.items()}


def gains(points: list[Point], domain: str, strategy: str, name: str) -> np.ndarray:
    """By seed, the mean over rounds of what a strategy is above random choice, [seeds]."""
    both = {
        who: {(p.seed, p.labels): getattr(p, name) for p in points if p[:2] == (domain, who)}
        for who in (strategy, "random")
    }
    above: dict[int, list[float]] = {}
    for (seed, labels), value in both[strategy].items():
        if labels:
            above.setdefault(seed, []).append(value - both["random"][seed, labels])
    return np.array([np.mean(values) for values in above.values()])


def lines(points: list[Point]) -> Iterator[str]:
    """A table for each domain."""
    for domain in dict.fromkeys(point.domain for point in points):
        by_chance = mean_curve(points, domain, "random", "accuracy")
        most, half = max(by_chance), sorted(by_chance)[len(by_chance) // 2]
        yield f"{domain}: {most} labels; {by_chance[0]:.4f} without"
        yield (
            f"{'strategy':20} {'accuracy':>8} {'recall':>8}   above random, mean of rounds"
            f"       needed for random's {half}, {most}"
        )
        for strategy in dict.fromkeys(point.strategy for point in points):
            curves = [mean_curve(points, domain, strategy, name) for name in MEASURED]
            above = [gains(points, domain, strategy, name) for name in MEASURED]
            ends = "".join(f" {curve[most]:8.4f}" for curve in curves)
            spread = "  ".join(f"{a.mean():+.4f} ± {a.std(ddof=1):.4f}" for a in above)
            shares = "".join(f" {needed(curves[0], by_chance[n]) / n:5.2f}" for n in (half, most))
            yield f"{strategy:20}{ends}   {spread}   {shares}"


def draw(points: list[Point]) -> bytes:
    """Accuracy by number of labels, a panel for each domain, as PNG."""
    from matplotlib import colormaps

    domains = list(dict.fromkeys(point.domain for point in points))
    strategies = list(dict.fromkeys(point.strategy for point in points))
    figure = plots.Figure(figsize=(5 * len(domains), 4.6), layout="constrained")
    panels = figure.subplots(1, len(domains), squeeze=False).flat
    for axes, domain in zip(panels, domains, strict=True):
        for number, strategy in enumerate(strategies):
            curve = mean_curve(points, domain, strategy, "accuracy")
            style = {"color": colormaps["tab20"](number), "linewidth": 1.2}
            if strategy in THICK:
                style = {"color": THICK[strategy], "linewidth": 2.6}
            axes.plot(list(curve), list(curve.values()), label=strategy, **style)
        plots.describe(axes, "labels", "accuracy")
        axes.set_title(domain, fontsize=10)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return plots.png(figure)
