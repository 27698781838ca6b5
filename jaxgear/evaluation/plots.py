"""Arrays in, figures out: curves, confusion matrix, grid. Only `plots*.py` use matplotlib.

Figures are made without pyplot: nothing is shown, nothing stays open, no display is needed.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxgear.files import write_bytes
from jaxgear.training import history

TRAIN, VAL, BEST, WRONG = "#1b6ca8", "#d1662b", "#555555", "#b3261e"
INK, GRID = "#222222", "#dddddd"


@dataclass(frozen=True)
class Tile:
    """One picture of a grid. The title's first line is set in bold."""

    image: UInt8[np.ndarray, "H W 3"] | None  # None: could not be read
    title: str
    detail: str = ""
    wrong: bool = False


def curves(rows: Sequence[history.Row], title: str = "") -> Figure:
    """Average training and validation loss and accuracy of every epoch, the best epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    draw_curve(losses, rows, "loss")
    draw_curve(accuracies, rows, "accuracy")
    best = history.best(rows)
    losses.legend(frameon=False)
    losses.set_title(f"best epoch {best.epoch}: validation loss {best.val_loss:.3f}", fontsize=10)
    accuracies.set_title(f"validation accuracy there {best.val_accuracy:.3f}", fontsize=10)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def draw_curve(axes: Axes, rows: Sequence[history.Row], name: str) -> None:
    """The training and the validation line of "loss" or "accuracy"."""
    epochs = [row.epoch for row in rows]
    lines = (("train", TRAIN, "training (as optimised)"), ("val", VAL, "validation"))
    for side, colour, label in lines:
        values = [getattr(row, f"{side}_{name}") for row in rows]
        axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=label)
    best = history.best(rows)
    axes.axvline(best.epoch, color=BEST, linewidth=1, linestyle=":")
    value = getattr(best, f"val_{name}")
    axes.plot(best.epoch, value, "o", markersize=9, fillstyle="none", color=BEST)
    describe(axes, "epoch", f"average {name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if name == "loss":
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(top=1)


def confusion(
    table: Int[np.ndarray, "K K"] | Sequence[Sequence[int]],
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """Counts, each row shaded by its share of the true class; the empty cells stay empty."""
    table = np.asarray(table)
    side = max(4.5, 0.55 * len(classes) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in zip(*np.nonzero(table), strict=True):
        light = share[true, predicted] > 0.5
        colour = "white" if light else (INK if true == predicted else WRONG)
        axes.text(
            predicted,
            true,
            int(table[true, predicted]),
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )
    names = [shorten(name, 24) for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11)
    return figure


def grid(tiles: Sequence[Tile], title: str = "", columns: int | None = None) -> Figure:
    """Pictures with titles, in rows; wrong ones titled in red with a red frame."""
    columns = columns or _columns(len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.55 * rows + 0.5), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells[len(tiles) :]:
        axes.set_visible(False)
    for axes, tile in zip(cells, tiles, strict=False):
        colour = WRONG if tile.wrong else INK
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(colour if tile.wrong else GRID)
        axes.spines[:].set_linewidth(2 if tile.wrong else 1)
        if tile.image is None:
            axes.set_facecolor("#f3f3f3")
            axes.set_aspect("equal")
            axes.text(
                0.5,
                0.5,
                "unreadable",
                ha="center",
                va="center",
                color=WRONG,
                transform=axes.transAxes,
            )
        else:
            axes.imshow(tile.image)
        axes.set_title(shorten(tile.title, 26), fontsize=10, fontweight="bold", color=colour)
        axes.set_xlabel(shorten(tile.detail, 34), fontsize=8, color=colour)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG in one move; the same figure is the same bytes (no time, no version in it)."""
    write_bytes(path, to_png(figure))


def to_png(figure: Figure) -> bytes:
    """The bytes that `save` writes."""
    png = io.BytesIO()
    figure.savefig(png, dpi=110, metadata={"Software": None})
    return png.getvalue()


def _columns(tiles: int) -> int:
    """A grid a little wider than high, with as few empty cells as that allows."""
    if tiles <= 6:
        return tiles
    ideal = math.sqrt(1.6 * tiles)
    return min(range(4, 9), key=lambda c: (-tiles % c > 1, abs(c - ideal)))


def describe(axes: Axes, x: str, y: str) -> None:
    """Names both axes; a light grid instead of a box."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def shorten(text: str, most: int) -> str:
    """Cut in the middle, where names differ least; dollar signs are text, not formulas."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"
    return text.replace("$", r"\$")
