"""The section of a report about corrupted images and other folders."""

from collections.abc import Sequence

import numpy as np

from jaxgear.evaluation import metrics
from jaxgear.evaluation.report import page
from jaxgear.evaluation.robustness.measure import CLEAN, OF_SETS, Beside, Robustness

MOST = 8  # other runs with a column each; more are shown as lowest, mean and highest


def section(measured: Robustness | None, beside: Sequence[Beside]) -> str:
    """Tables of the figures. Each other run has a column; more than `MOST` of them share three."""
    if measured is None:
        return page.paragraph(
            "Not measured. With --robustness the report corrupts the pictures of the test split "
            "and predicts them anew; --set NAME=FOLDER tests on a folder of pictures by class."
        )
    parts = [_sets(measured, beside)]
    if measured.corruptions:
        parts.append(_corruptions(measured, beside))
    return "".join(parts + [page.paragraph(sentence) for sentence in _sentences(beside)])


def _sentences(beside: Sequence[Beside]) -> list[str]:
    """Sentences about the other runs."""
    others = [run.name for run in beside if not run.same_test]
    if len(beside) <= MOST:
        return [
            f"The test split of {name} has other pictures than this run's, so other pictures were "
            "corrupted."
            for name in others
        ]
    sentences = [
        f"The {len(beside)} other runs are shown by their lowest, mean and highest accuracy, over "
        "the runs that were measured. Under corruptions, the accuracy of a run is its mean over "
        "severities."
    ]
    if others:
        sentences.append(
            f"The test splits of {len(others)} of them have other pictures than this run's, so "
            "other pictures were corrupted."
        )
    return sentences


def _names(beside: Sequence[Beside]) -> list[str]:
    """Headers of the columns of `_cells`."""
    if len(beside) <= MOST:
        return [run.name for run in beside]
    return [f"other runs, {which}" for which in ("lowest", "mean", "highest")]


def _cells(accuracies: Sequence[float | None]) -> list[str]:
    """An accuracy of each other run (None: not measured) as cells of a row."""
    if len(accuracies) <= MOST:
        return ["-" if value is None else f"{value:.3f}" for value in accuracies]
    known = [value for value in accuracies if value is not None]
    return [f"{of(known):.3f}" if known else "-" for of in (min, np.mean, max)]


def _sets(measured: Robustness, beside: Sequence[Beside]) -> str:
    rows = [
        [
            "test split" if name == CLEAN else name,
            *(metric.text(score[metric.name], 3) for metric in OF_SETS),
            f"{score['accepted']:.3f}",
            *_cells([run.figures.sets[name]["accuracy"] if name in run.figures.sets else None
                     for run in beside]),
        ]
        for name, score in measured.sets.items()
    ]  # fmt: skip
    header = ["pictures of", *(metric.title for metric in OF_SETS), "accepted as gear"]
    known = "".join(
        page.paragraph(f"Of {name}, {sentence}.")
        for name, score in measured.sets.items()
        if (sentence := metrics.known_pictures(score["by_side"]))
    )
    return page.table("As they are", header + _names(beside), rows) + known


def _corruptions(measured: Robustness, beside: Sequence[Beside]) -> str:
    rows = [
        [
            name,
            *(f"{accuracy:.3f}" for accuracy in measured.corruptions[name]),
            f"{measured.mean(name):.3f}",
            *_cells(
                [run.figures.mean(name) if run.figures.corruptions else None for run in beside]
            ),
        ]
        for name in measured.corruptions
    ]
    totals = [
        sum(column) / len(column) for column in zip(*measured.corruptions.values(), strict=True)
    ]
    rows.append(
        [
            "mean",
            *(f"{accuracy:.3f}" for accuracy in totals),
            f"{measured.mean_of_all:.3f}",
            *_cells(
                [run.figures.mean_of_all if run.figures.corruptions else None for run in beside]
            ),
        ]
    )
    styles = {
        (i, j): f' class="right" style="--share:{45 * float(cell):.0f}%"'
        for i, row in enumerate(rows)
        for j, cell in enumerate(row[1:])
        if cell != "-"
    }
    severities = [f"severity {severity}" for severity in measured.severities]
    table = page.table(
        "Accuracy under common corruptions",
        [
            "corruption",
            *severities,
            "mean",
            *(f"{name}, mean" if len(beside) <= MOST else name for name in _names(beside)),
        ],
        rows,
        styles=styles,
    )
    clean = measured.sets[CLEAN]
    some = "all" if measured.n == clean["n"] else f"{measured.n} of the"
    return (
        page.paragraph(
            f"Corruptions (after Hendrycks & Dietterich 2019) of {some} {clean['n']} test "
            "pictures, as the network gets them. Strengths are fractions of the picture's side, so "
            "that they mean the same at any size."
        )
        + table
    )
