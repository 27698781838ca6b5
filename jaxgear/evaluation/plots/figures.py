"""Arrays in, figures out: confusion matrix, grid, and what all figures share.

Figures are made without pyplot: no window opens, no figure stays in memory, no display is needed.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.axes import Axes

from jaxgear.evaluation import metrics
from jaxgear.evaluation.plots import fonts
from jaxgear.files import write_bytes

TRAIN, VAL, BEST, WRONG = "#1b6ca8", "#d1662b", "#555555", "#b3261e"
INK, FAINT, GRID, WARNING = "#222222", "#767676", "#dddddd", "#9a5b00"

DPI = 110  # of files and notebooks
# Limits that bound the size of every figure.
MOST_CLASSES, MOST_TILES, TITLE_LINES = 40, 60, 6


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook displays without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


class Photographs(Figure):
    """A figure of photographs: a notebook keeps it as JPEG, in an eighth of the bytes of PNG."""

    _repr_png_ = None

    def _repr_jpeg_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, dpi=80, format="jpeg", pil_kwargs={"quality": 88})
        return file.getvalue()


@dataclass(frozen=True)
class Tile:
    """An image of a grid, with a bold title above and lines below it."""

    image: UInt8[np.ndarray, "H W 3"] | None  # None: could not be read
    title: str
    detail: str = ""  # in grey
    name: str = ""  # in light grey
    warning: str = ""  # in amber
    wrong: bool = False  # title and frame in red
    # Boxes to draw: left, top, right, bottom in pixels of the image, a label, a colour.
    boxes: Sequence[tuple[tuple[float, float, float, float], str, str]] = ()


def confusion(
    table: Int[np.ndarray, "K K"] | Sequence[Sequence[int]],
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """Counts, shaded by their share of the true class; cells with a count of 0 stay empty.

    Beyond `MOST_CLASSES` classes, the ones with the most mistakes are shown, and all others as one.
    """
    table, classes = metrics.most_confused(np.asarray(table), classes, MOST_CLASSES)
    side = max(4.5, 0.55 * len(classes) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    centred = {"ha": "center", "va": "center", "fontsize": 9}
    for true, predicted in zip(*np.nonzero(table), strict=True):
        light = share[true, predicted] > 0.5
        colour = "white" if light else (INK if true == predicted else WRONG)
        axes.text(predicted, true, int(table[true, predicted]), color=colour, **centred)
    names = [fonts.fit(name, 1.8, 10) for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(**fonts.style(label.get_text(), 10))
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11)
    return figure


def grid(tiles: Sequence[Tile], title: str = "", columns: int | None = None) -> Photographs:
    """Images with titles, in rows. Wrong ones have a red title and frame.

    At most the first `MOST_TILES` tiles and `TITLE_LINES` lines of the title are drawn.
    """
    if len(tiles) > MOST_TILES:
        title = f"The first {MOST_TILES} of {len(tiles)}. {title}"
        tiles = tiles[:MOST_TILES]
    if not tiles:
        raise ValueError("no pictures, so there is no grid of them")
    columns = columns or _columns(len(tiles))
    rows = math.ceil(len(tiles) / columns)
    lines = max(sum(map(bool, (t.detail, t.name, t.warning))) for t in tiles)
    # In inches. Few images are shown large. All positions are known, so no layout is computed.
    side = 4.0 if columns == 1 else 2.8 if columns <= 3 else 2.1
    gap, margin, head, foot = 0.16, 0.25, 0.3, 0.2 * lines + 0.12
    width = columns * (side + gap) - gap + 2 * margin
    letters = int((width - 2 * margin) * 11)  # 12 points: 11 letters in an inch
    wrapped = textwrap.wrap(title, letters, max_lines=TITLE_LINES, placeholder="…")
    top = 0.24 * len(wrapped) + margin
    height = rows * (head + side + foot) + top + margin / 2
    figure = Photographs(figsize=(width, height))
    if wrapped:
        text = "\n".join(map(fonts.drawable, wrapped))
        at = {"x": margin / width, "y": 1 - margin / 2 / height, "ha": "left", "va": "top"}
        figure.suptitle(text, **at, **fonts.style(text, 12), color=INK)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        left = margin + column * (side + gap)
        bottom = height - top - row * (head + side + foot) - head - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        _draw(axes, tile, side)
    return figure


def _draw(axes: Axes, tile: Tile, side: float) -> None:
    """One tile of a grid; `side` is the side of the axes in inches."""
    colour = WRONG if tile.wrong else INK
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=colour if tile.wrong else GRID, linewidth=2 if tile.wrong else 1)
    if tile.image is None:
        axes.set_facecolor("#f3f3f3")
        centre = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "unreadable", color=WRONG, fontsize=11, **centre)
    else:
        axes.imshow(tile.image)
    for box in tile.boxes:
        _draw_box(axes, *box, tile.image.shape[1])
    text = fonts.fit(tile.title, side, 11, bold=True)
    axes.set_title(text, color=colour, pad=5, **fonts.style(text, 11, bold=True))
    below = ((tile.detail, INK), (tile.warning, WARNING), (tile.name, FAINT))
    for number, (line, colour) in enumerate((text, c) for text, c in below if text):
        text = fonts.fit(line, side, 8.5)
        axes.annotate(
            text,
            (0.5, 0),
            (0, -5 - 14.4 * number),
            "axes fraction",
            "offset points",
            ha="center",
            va="top",
            color=colour,
            **fonts.style(text, 8.5),
        )


def _draw_box(
    axes: Axes, box: tuple[float, float, float, float], label: str, colour: str, width: int
) -> None:
    """A box with its label above; in the right third of an image the label ends with the box."""
    left, top, right, bottom = box
    corners = ([left, right, right, left, left], [top, top, bottom, bottom, top])
    axes.plot(*corners, color="white", linewidth=2.4, solid_joinstyle="miter")
    axes.plot(*corners, color=colour, linewidth=1.2, solid_joinstyle="miter")
    x, side = (right, "right") if right > 2 / 3 * width else (left, "left")
    behind = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    style = fonts.style(label, 5)
    axes.text(x, top, label, ha=side, va="bottom", color="white", bbox=behind, **style)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically. Equal figures give equal bytes: it holds no time and no version."""
    write_bytes(path, png(figure))


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The bytes that `save` writes; a higher `dpi` for slides."""
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def _columns(tiles: int) -> int:
    """The number of columns for a grid a little wider than high, with few empty cells."""
    if tiles <= 6:
        return tiles if tiles <= 4 else 3
    ideal = math.sqrt(1.6 * tiles)
    return min(range(4, 9), key=lambda c: (-tiles % c > 1, abs(c - ideal)))


def describe(axes: Axes, x: str, y: str) -> None:
    """Labels both axes, and draws a light grid instead of a box."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
