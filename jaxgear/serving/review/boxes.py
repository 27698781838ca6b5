"""Corrects the box of a crop: adds the new crop and removes the old one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jaxgear.data import crops
from jaxgear.data.labels import Correction
from jaxgear.prediction import NONE
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.pictures import Pictures, Reason

CORRECTED = "box corrected"  # the reason of the removal
UNDONE = "undone"  # of a removal that undoes the addition of a new picture: it is undecided again


def box_of(pictures: Pictures, index: int) -> crops.Box | None:
    """The box that can be corrected: of a crop, or around all of a new photograph in which the
    queue says that no gear was found; else None.
    """
    none = pictures.new and pictures.reasons.get(index, Reason()).predicted == NONE
    return crops.parted(pictures.file(index))[1] or (crops.WHOLE if none else None)


def with_box(
    row: Correction, decision: Decision, pictures: Pictures, rows: Sequence[Correction]
) -> tuple[Correction, ...]:
    """The rows to write for a decision; the last one is about its picture.

    Undoing a corrected box also undoes the addition, which is the row before the removal.

    Args:
        row: the decision without a corrected box.
        rows: of the corrections file so far.

    Raises:
        ImageError: the photograph cannot be read.
    """
    undone = rows[decision.row - 2 : decision.row] if decision.action == "undo" else ()
    if _correct_a_box(undone):
        added = undone[0]
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


def _correct_a_box(rows: Sequence[Correction]) -> bool:
    """Whether these are the two rows of one decision with another box."""
    if len(rows) != 2 or rows[0].when != rows[1].when:
        return False
    return (rows[0].action, rows[1].action, rows[1].label) == ("add", "remove", CORRECTED)


class BoxFields:
    """The sides of the box of one picture, as numbers that a notebook shows."""

    def __init__(self, widgets: Any, changed: Callable[[], None]):
        """`changed` is called after a person has changed a side."""
        self.fields = [
            widgets.BoundedFloatText(min=0, max=1, step=0.01, description=side)
            for side in crops.SIDES
        ]
        self._shown: crops.Box | None = None
        self._changed = changed
        for field in self.fields:
            field.observe(self._on_change, "value")

    def show(self, box: crops.Box | None) -> None:
        """Shows a box; no fields if there is none."""
        self._shown = None
        for field, side in zip(self.fields, box or crops.WHOLE, strict=True):
            field.value = side
            field.layout.display = None if box else "none"
        self._shown = box

    @property
    def corrected(self) -> crops.Box | None:
        """The box, if it is another one than that shown; None also if it has no area."""
        left, top, right, bottom = (round(field.value, 4) for field in self.fields)
        box = left, top, right, bottom
        return box if self._shown not in (None, box) and left < right and top < bottom else None

    def _on_change(self, change: Any) -> None:
        if self._shown:
            self._changed()
