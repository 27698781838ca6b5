"""SVG figures of a report, in the colours of the page, light or dark."""

import html
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib

from jaxgear.evaluation.calibration import Bin
from jaxgear.evaluation.plots import figures as plots
from jaxgear.evaluation.plots.figures import Figure
from jaxgear.evaluation.plots.learning_curves import draw_curve
from jaxgear.training import history

# Readable at the width of a phone.
SIZE = (4.2, 3.0)  # inches
# Colours of the figures -> colours of the page's style sheet.
_PAINT = {
    "#000000": "currentColor",
    plots.INK: "currentColor",
    plots.GRID: "var(--line)",
    plots.BEST: "var(--quiet)",
    plots.TRAIN: "var(--first)",
    plots.VAL: "var(--second)",
}


def curve(rows: Sequence[history.Row], name: str) -> Figure:
    """Training and validation "loss" or "accuracy" of every epoch."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, rows, name)
    axes.legend(frameon=False)
    return figure


def reliability(tables: Mapping[str, Sequence[Bin]]) -> Figure:
    """Accuracy over confidence, for one or two tables. Larger markers stand for more images."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=plots.BEST, linewidth=1, linestyle=":", label="exact")
    marks = ((plots.TRAIN, "s"), (plots.VAL, "o"))
    for (label, table), (colour, marker) in zip(tables.items(), marks, strict=False):
        most = max((b.n for b in table), default=1)
        axes.scatter(
            [b.confidence for b in table],
            [b.accuracy for b in table],
            [12 + 60 * b.n / most for b in table],
            color=colour,
            marker=marker,
            label=label,
        )
    plots.describe(axes, "confidence (largest probability)", "share that is right")
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.05)
    figure.legend(frameon=False, loc="outside upper left", ncols=1 + len(tables))
    return figure


def to_svg(figure: Figure, label: str) -> str:
    """An inline `<svg>` with `label` as its text alternative."""
    file = io.StringIO()
    unstamped = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # Text stays text. The salt makes ids reproducible and distinct between figures of one page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata=unstamped)
    text = file.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"", "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    used = set(re.findall(r"[#]([\w.-]+)[\")]", svg))
    svg = re.sub(r" id=\"([^\"]*)\"", lambda match: match[0] if match[1] in used else "", svg)
    for colour, paint in _PAINT.items():
        svg = svg.replace(colour, paint)
    svg = re.sub(r" (width|height)=\"[\d.]+pt\"", "", svg, count=2)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
