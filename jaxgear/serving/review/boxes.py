"""The corrected box of a crop: its new crop is added, and the old one removed."""

from collections.abc import Sequence
from dataclasses import replace

from jaxgear.data import crops
from jaxgear.data.labels import Correction
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.pictures import Pictures

CORRECTED = "box corrected"  # the reason of the removal
UNDONE = "undone"  # of a removal that undoes the addition of a new picture: it is undecided again


def with_box(
    row: Correction, decision: Decision, pictures: Pictures, rows: Sequence[Correction]
) -> tuple[Correction, ...]:
    """The rows of a decision, the last one about its picture; `row` is that without another box.

    Undoing such a decision also undoes the addition, which is the row before the removal.

    Args:
        rows: of the corrections file so far.

    Raises:
        ImageError: the photograph cannot be read.
    """
    if decision.action == "undo" and rows[decision.row - 1].label == CORRECTED:
        added = rows[decision.row - 2]
        return replace(added, action="remove", label=UNDONE, by=row.by, when=row.when), row
    if decision.box is None:
        return (row,)
    photograph, box = crops.parted(pictures.file(decision.index))
    if decision.box == (box or crops.WHOLE):
        return (row,)
    address = crops.address(photograph, decision.box)
    sha256 = crops.sha256(address, pictures.shown(decision.index))
    return (
        replace(row, path=crops.address(crops.parted(row.path)[0], decision.box), sha256=sha256),
        replace(row, action="remove", label=CORRECTED),
    )
