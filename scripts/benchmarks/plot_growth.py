"""Plots the cost of a step as work grows: time, its fit and memory against the varied quantity."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import NullFormatter, NullLocator

from jaxgear.evaluation.plots.figures import FAINT, TRAIN, VAL, Figure, describe


@dataclass(frozen=True)
class Panel:
    """One varied quantity; all others have their defaults."""

    name: str
    values: Sequence[int]
    measured: Sequence[float]  # ms an image
    fitted: Sequence[float]  # ms an image
    fit: str  # the formula, for the legend
    memory: Sequence[float]  # largest resident memory of the process, GB
    logarithmic: bool = False


def growth(panels: Sequence[Panel]) -> Figure:
    """A panel for each quantity: measured time an image, its fit, and memory on the right axis."""
    columns = 3 if len(panels) == 3 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.8 * rows), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(cells, panels, strict=False):
        (time,) = axes.plot(panel.values, panel.measured, "o", color=TRAIN, label="measured")
        (fit,) = axes.plot(panel.values, panel.fitted, "-", color=TRAIN, label=panel.fit)
        describe(axes, panel.name, "ms an image")
        axes.set_ylim(0, 1.35 * max(*panel.measured, *panel.fitted))
        if panel.logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(panel.values, [f"{value:,}" for value in panel.values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        right = axes.twinx()
        (memory,) = right.plot(
            panel.values, panel.memory, "s--", color=VAL, markersize=4, label="peak memory (right)"
        )
        right.set_ylabel("GB", color=FAINT)
        right.set_ylim(0, 1.35 * max(panel.memory))
        right.spines["top"].set_visible(False)
        axes.legend(handles=[time, fit, memory], frameon=False, fontsize=8.5, loc="upper left")
    return figure
