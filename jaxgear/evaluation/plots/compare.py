"""The curves of several runs in one figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxgear.evaluation.plots import fonts
from jaxgear.evaluation.plots.figures import Figure, describe, draw_curve, top_at_one
from jaxgear.training import history

# Okabe and Ito (2008): distinct for every kind of colour vision. Yellow is left out as too light.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222")
STYLES = ("-", "--", "-.", ":")
MOST = len(COLOURS) * len(STYLES)  # groups that can be told apart; also the runs drawn of one group


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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses.set_ylim(bottom=0)
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
        draw_curve(axes, rows, "loss")
        text = fonts.fit(label, 4.5, 11)
        axes.set_title(text, **fonts.style(text, 11))
        axes.label_outer()
    panels[0].legend(frameon=False)
    return figure


def _mean_of_best(members: Sequence[Sequence[history.Row]]) -> float:
    return float(np.mean([history.best(rows).val_loss for rows in members]))
