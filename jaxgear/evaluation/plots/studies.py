"""The accuracies of a study's variants, and the losses of a rate sweep."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxgear.evaluation.comparison import Spread
from jaxgear.evaluation.plots import fonts
from jaxgear.evaluation.plots.figures import TRAIN, Figure, describe
from jaxgear.evaluation.plots.learning_curves import COLOURS, STYLES, top_at_one

MOST = 30  # variants drawn as rows


def accuracies(variants: Sequence[dict[str, Any]], spreads: Sequence[Spread]) -> Figure:
    """Validation accuracy of each variant, mean and standard deviation over seeds.

    If the variants have a number in common that varies, such as a rate, it becomes the axis, with a
    line for each combination of the other fields and the spread as a band.

    Args:
        variants: best first.
        spreads: of the validation accuracy of each.
    """
    field = _axis(variants)
    if field is None:
        return _rows(variants, spreads)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for variant, spread in zip(variants, spreads, strict=True):
        rest = _words({name: value for name, value in variant.items() if name != field})
        lines.setdefault(rest, []).append((variant[field], spread))
    for index, (label, points) in enumerate(lines.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        points.sort(key=lambda point: point[0])
        x = [value for value, _ in points]
        mean = np.array([spread.mean for _, spread in points])
        std = np.array([spread.std or 0.0 for _, spread in points])
        label = fonts.fit(label, 4, 9)
        axes.plot(x, mean, style, color=colour, marker="o", markersize=4, label=label or None)
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    values = [variant[field] for variant in variants]
    if min(values) > 0 and max(values) >= 5 * min(values):
        axes.set_xscale("log")
    count = max(spread.n for spread in spreads)
    seeds = f"mean ± standard deviation, {count} seeds" if count > 1 else "one seed"
    describe(axes, field, f"validation accuracy ({seeds})")
    top_at_one(axes)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


class Curve(NamedTuple):
    """A sweep of learning rates."""

    label: str  # "" for the only one
    rates: Float[np.ndarray, " N"]
    losses: Float[np.ndarray, " N"]
    smooth: Float[np.ndarray, " N"]
    suggested: float


def sweeps(curves: Sequence[Curve], title: str = "") -> Figure:
    """Training loss by learning rate, with the suggested rates.

    Losses that blow up are cut off, so that the others stay readable.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        label = fonts.fit(curve.label, 3, 9) + ": " * bool(curve.label) + f"{curve.suggested:.2g}"
        axes.plot(curve.rates, curve.losses, ".", color=colour, alpha=0.25, markersize=3)
        axes.plot(curve.rates, curve.smooth, style, color=colour, label=label)
        axes.axvline(curve.suggested, color=colour, linestyle=":")
    axes.set_xscale("log")
    lowest = min(curve.smooth.min() for curve in curves)
    first = max(curve.smooth[: len(curve.smooth) // 4 + 1].max() for curve in curves)
    axes.set_ylim(0.95 * lowest, 1.1 * first)
    describe(axes, "learning rate", "training loss (dots: each step, lines: smoothed)")
    axes.legend(frameon=False, fontsize=9, title="suggested", title_fontsize=9)
    axes.set_title(title, fontsize=10)
    return figure


def _axis(variants: Sequence[dict[str, Any]]) -> str | None:
    """The field with the most different numbers, which all variants have; None: there is none."""
    counts = {
        name: len({variant[name] for variant in variants})
        for name in variants[0]
        if all(
            isinstance(variant.get(name), int | float) and not isinstance(variant[name], bool)
            for variant in variants
        )
    } if variants else {}  # fmt: skip
    best = max(counts, key=counts.get, default=None)
    return best if best is not None and counts[best] > 1 else None


def _rows(variants: Sequence[dict[str, Any]], spreads: Sequence[Spread]) -> Figure:
    """A row for each variant, best on top."""
    variants, spreads = variants[:MOST], spreads[:MOST]
    figure = Figure(figsize=(8, 1.2 + 0.32 * max(1, len(variants))), layout="constrained")
    axes = figure.subplots()
    places = range(len(variants), 0, -1)
    for place, spread in zip(places, spreads, strict=True):
        axes.errorbar(spread.mean, place, xerr=spread.std, fmt="o", color=TRAIN, capsize=3)
    axes.set_yticks(places, [fonts.fit(_words(v) or "as it is", 3, 9) for v in variants])
    describe(axes, "validation accuracy (mean ± standard deviation over seeds)", "")
    return figure


def _words(variant: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in variant.items())
