"""Loss and accuracy by epoch: of one run, or of several in one figure."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator

from jaxgear.evaluation.plots import fonts
from jaxgear.evaluation.plots.figures import BEST, TRAIN, VAL, Figure, describe
from jaxgear.training import history

# Okabe and Ito (2008): distinct for every kind of colour vision. Yellow is left out as too light.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222")
STYLES = ("-", "--", "-.", ":")
MOST = len(COLOURS) * len(STYLES)  # groups that can be told apart; also the runs drawn of one group


def curves(rows: Sequence[history.Row], title: str = "") -> Figure:
    """Average training and validation loss and accuracy of every epoch, the best epoch marked."""
    figure = Figure(figsize=(10, 4))
    # Drawn after every epoch: fixed margins take half the time of a computed layout.
    margins = {"left": 0.06, "right": 0.99, "bottom": 0.13, "top": 0.83, "wspace": 0.16}
    losses, accuracies = figure.subplots(1, 2, gridspec_kw=margins)
    draw_curve(losses, rows, "loss")
    draw_curve(accuracies, rows, "accuracy")
    best = history.best(rows)
    losses.legend(frameon=False)
    title_of = {"fontsize": 10, "pad": 6 if best.size is None else 16}  # above the sizes
    losses.set_title(f"best epoch {best.epoch}: validation loss {best.val_loss:.3f}", **title_of)
    accuracies.set_title(f"validation accuracy there {best.val_accuracy:.3f}", **title_of)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def draw_curve(
    axes: Axes,
    rows: Sequence[history.Row],
    name: str,
    beside: Sequence[Sequence[history.Row]] = (),
) -> None:
    """The training and the validation line of "loss" or "accuracy".

    With progressive resizing, the lines break where the size of the images changes.

    Args:
        beside: all runs whose axes are shared with this one.
    """
    lines = (("train", TRAIN, "training (as optimised)"), ("val", VAL, "validation"))
    for size, group in itertools.groupby(rows, lambda row: row.size):
        part = list(group)
        epochs = [row.epoch for row in part]
        for split, colour, label in lines:
            values = [getattr(row, f"{split}_{name}") for row in part]
            label = label if part[0] is rows[0] else None
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=label)
        if size is not None:
            _mark_size(axes, size, epochs[0], first=part[0] is rows[0])
    best = history.best(rows)
    axes.axvline(best.epoch, color=BEST, linewidth=1, linestyle=":")
    value = getattr(best, f"val_{name}")
    axes.plot(best.epoch, value, "o", markersize=9, fillstyle="none", color=BEST)
    describe(axes, "epoch", f"average {name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if name == "loss":
        loss_axis(axes, beside or [rows])
    else:
        top_at_one(axes)


def _mark_size(axes: Axes, size: int, epoch: int, first: bool) -> None:
    """Writes the size of the images above the epochs from `epoch` on, and a line before them."""
    if not first:
        axes.axvline(epoch - 0.5, color="0.8", linewidth=1)
    place = axes.get_xaxis_transform()  # x in epochs, y as a share of the axis
    axes.text(epoch - 0.4, 1.01, f"{size} px", transform=place, fontsize=8, color="0.4")


def loss_axis(
    axes: Axes,
    runs: Sequence[Sequence[history.Row]],
    drawn: Sequence[str] = ("train_loss", "val_loss"),
) -> None:
    """Starts a loss axis at 0, or makes it logarithmic if a high loss would flatten the others.

    That is a loss above four times the median of the runs' first training losses.

    Args:
        drawn: the losses of a row that the axis shows.
    """
    losses = [getattr(row, name) for rows in runs for row in rows for name in drawn]
    peak = max(filter(math.isfinite, losses))
    usual = np.median([rows[0].train_loss for rows in runs])
    if peak > 4 * usual and min(losses) > 0:
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(LogFormatter())  # 6, and not the wider 6 x 10^0, which pushes the label out
        axes.set_ylabel(f"{axes.get_ylabel()} (log axis: the highest is {peak:.3g})")
    else:
        axes.set_ylim(0, 1.05 * peak or 1)


def top_at_one(axes: Axes) -> None:
    """Ends an accuracy axis a little above 1, so that markers at 1 are drawn whole."""
    low = min(axes.get_ylim()[0], 0.99)
    axes.set_ylim(low, 1 + 0.04 * (1 - low))


def runs(groups: Mapping[str, Sequence[Sequence[history.Row]]]) -> Figure:
    """Validation loss and accuracy by epoch: each run thin, the mean of each group's runs thick.

    The mean ends with the shortest run of a group, so that each point is over the same runs. A ring
    marks the best epoch of each run. At most `MOST` groups are drawn, the ones with the lowest
    validation loss, and the first `MOST` runs of each.
    """
    title = ""
    if len(groups) > MOST:
        title = f"The {MOST} of {len(groups)} groups with the lowest mean validation loss"
        best = sorted(groups, key=lambda label: _mean_of_best(groups[label]))[:MOST]
        groups = {label: groups[label] for label in groups if label in best}
    figure = Figure(figsize=(10, 4.2 + 0.22 * len(groups)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    losses, accuracies = figure.subplots(1, 2)
    for axes, name in ((losses, "loss"), (accuracies, "accuracy")):
        for index, (label, members) in enumerate(groups.items()):
            colour = COLOURS[index % len(COLOURS)]
            style = STYLES[index // len(COLOURS) % len(STYLES)]
            values = [[getattr(row, f"val_{name}") for row in rows] for rows in members]
            for rows, line in zip(members[:MOST], values[:MOST], strict=True):
                epochs = [row.epoch for row in rows]
                axes.plot(epochs, line, style, color=colour, linewidth=0.8, alpha=0.55)
                best = history.best(rows)
                axes.plot(best.epoch, getattr(best, f"val_{name}"), "o", color=colour, mfc="none")
            common = min(map(len, values))
            mean = np.mean([line[:common] for line in values], axis=0)
            epochs = [row.epoch for row in members[0][:common]]
            count = f" ({len(members)} runs)" if len(members) > 1 else ""
            label = fonts.fit(label, 8, 9) + count
            axes.plot(epochs, mean, style, color=colour, linewidth=2.2, label=label)
        describe(axes, "epoch", f"validation {name}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    loss_axis(losses, [rows for members in groups.values() for rows in members], ["val_loss"])
    top_at_one(accuracies)
    handles, labels = losses.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower left", frameon=False)
    for text in legend.get_texts():
        text.set(**fonts.style(text.get_text(), 9))
    return figure


def curves_beside(runs: Mapping[str, Sequence[history.Row]]) -> Figure:
    """Training and validation loss of each run, one panel a run, all on the same axis."""
    figure = Figure(figsize=(5 * len(runs), 4), layout="constrained")
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, (label, rows) in zip(panels, runs.items(), strict=True):
        draw_curve(axes, rows, "loss", tuple(runs.values()))
        text = fonts.fit(label, 4.5, 11)
        axes.set_title(text, **fonts.style(text, 11))
        axes.label_outer()
    panels[0].legend(frameon=False)
    return figure


def _mean_of_best(members: Sequence[Sequence[history.Row]]) -> float:
    return float(np.mean([history.best(rows).val_loss for rows in members]))
