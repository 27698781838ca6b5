"""The section of a report about corrupted images and other folders."""

from collections.abc import Sequence

import numpy as np

from jaxgear.evaluation import metrics
from jaxgear.evaluation.report import page
from jaxgear.evaluation.robustness.measure import CLEAN, OF_SETS, Beside, Robustness

MOST = 8  # other runs with a column each; of more, the range and the mean


def section(found: Robustness | None, beside: Sequence[Beside]) -> str:
    """Tables of what was measured. Other runs have a column each, or three together if they are
    more than `MOST`.
    """
    if found is None:
        return page.paragraph(
            "Not measured. With --robustness the report corrupts the pictures of the test split "
            "and predicts them anew; --set NAME=FOLDER tests on a folder of pictures by class."
        )
    parts = [_sets(found, beside)]
    if found.corruptions:
        parts.append(_corruptions(found, beside))
    return "".join(parts + [page.paragraph(sentence) for sentence in _said_of(beside)])


def _said_of(beside: Sequence[Beside]) -> list[str]:
    """Sentences about the other runs."""
    others = [one.name for one in beside if not one.same_test]
    if len(beside) <= MOST:
        return [
            f"The test split of {name}, and so what was corrupted, is other pictures than this "
            "run's."
            for name in others
        ]
    said = [
        f"The {len(beside)} other runs are shown by their lowest, mean and highest accuracy, over "
        "those in which it was measured. Under corruptions, the accuracy of a run is its mean over "
        "severities."
    ]
    if others:
        said.append(
            f"The test split of {len(others)} of them, and so what was corrupted, is other "
            "pictures than this run's."
        )
    return said


def _names(beside: Sequence[Beside]) -> list[str]:
    """Headers of the columns of `_cells`."""
    if len(beside) <= MOST:
        return [one.name for one in beside]
    return [f"other runs, {which}" for which in ("lowest", "mean", "highest")]


def _cells(accuracies: Sequence[float | None]) -> list[str]:
    """An accuracy of each other run (None: not measured) as cells of a row."""
    if len(accuracies) <= MOST:
        return ["-" if one is None else f"{one:.3f}" for one in accuracies]
    known = [one for one in accuracies if one is not None]
    return [f"{of(known):.3f}" if known else "-" for of in (min, np.mean, max)]


def _sets(found: Robustness, beside: Sequence[Beside]) -> str:
    rows = [
        [
            "test split" if name == CLEAN else name,
            *(metric.text(score[metric.name], 3) for metric in OF_SETS),
            f"{score['accepted']:.3f}",
            *_cells([one.found.sets[name]["accuracy"] if name in one.found.sets else None
                     for one in beside]),
        ]
        for name, score in found.sets.items()
    ]  # fmt: skip
    header = ["pictures of", *(metric.title for metric in OF_SETS), "accepted as gear"]
    known = "".join(
        page.paragraph(f"Of {name}, {sentence}.")
        for name, score in found.sets.items()
        if (sentence := metrics.known_pictures(score["by_side"]))
    )
    return page.table("As they are", header + _names(beside), rows) + known


def _corruptions(found: Robustness, beside: Sequence[Beside]) -> str:
    rows = [
        [
            name,
            *(f"{accuracy:.3f}" for accuracy in found.corruptions[name]),
            f"{found.mean(name):.3f}",
            *_cells([one.found.mean(name) if one.found.corruptions else None for one in beside]),
        ]
        for name in found.corruptions
    ]
    totals = [sum(column) / len(column) for column in zip(*found.corruptions.values(), strict=True)]
    rows.append(
        [
            "mean",
            *(f"{accuracy:.3f}" for accuracy in totals),
            f"{found.mean_of_all:.3f}",
            *_cells([one.found.mean_of_all if one.found.corruptions else None for one in beside]),
        ]
    )
    styles = {
        (i, j): f' class="right" style="--share:{45 * float(cell):.0f}%"'
        for i, row in enumerate(rows)
        for j, cell in enumerate(row[1:])
        if cell != "-"
    }
    severities = [f"severity {severity}" for severity in found.severities]
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
    clean = found.sets[CLEAN]
    some = "all" if found.n == clean["n"] else f"{found.n} of the"
    return (
        page.paragraph(
            f"Corruptions (after Hendrycks & Dietterich 2019) of {some} {clean['n']} test "
            "pictures, as the network gets them. Strengths are fractions of the picture's side, so "
            "that they mean the same at any size."
        )
        + table
    )
