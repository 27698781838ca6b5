"""Checks what a client sends: numbers of pictures, and decisions as JSON."""

import re
from typing import Any

from jaxgear.data.crops import Box
from jaxgear.files import from_json
from jaxgear.serving.guard import Refusal
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.session import Session
from jaxgear.text import printable

MOST = 500  # pictures of one request
_INDEX = re.compile(r"[0-9]{1,9}")


def decisions_of(session: Session, identity: str, body: bytes) -> list[Decision]:
    """The decisions of a request.

    Raises:
        Refusal: anything that our own page would not send.
    """
    try:
        request = from_json(body)
    except ValueError:
        raise Refusal(400, "not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("pictures"), list):
        raise Refusal(422, "expected an object with a list of pictures")
    if request.get("set") != identity:
        raise Refusal(410, "this server shows other pictures now; load the page again")
    if not 1 <= len(request["pictures"]) <= MOST:
        raise Refusal(422, f"1 to {MOST} pictures at a time")
    wanted = [_decision(session, entry) for entry in request["pictures"]]
    if len({decision.index for decision in wanted}) < len(wanted):
        raise Refusal(422, "a picture twice in one request")
    if len(wanted) > 1 and any(decision.box for decision in wanted):
        raise Refusal(422, "one box at a time")
    return wanted


def _decision(session: Session, entry: Any) -> Decision:
    if not isinstance(entry, dict):
        raise Refusal(422, "a picture is an object")
    label, row = entry.get("label", ""), entry.get("row", 0)
    numbers = (entry.get("index"), entry.get("version"), row)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise Refusal(422, "index, version and row are whole numbers")
    if not isinstance(label, str) or len(label) > 200 or printable(label) != label:
        raise Refusal(422, "a label is one line of at most 200 characters")
    action = entry.get("action")
    if action not in ("label", "remove", "undo") or (action == "undo" and not row):
        raise Refusal(422, "an action is label, remove, or undo with a row")
    if action == "label" and label not in session.classes:
        raise Refusal(422, "no such class")
    index, version, _ = numbers
    box = _box(entry["box"]) if "box" in entry else None
    if box is not None and (action != "label" or not session.pictures.new):
        raise Refusal(422, "a box goes with the label of a new picture")
    return Decision(picture_index(session, index), version, action, label, row, box)


def _box(sides: Any) -> Box:
    """A box of four decimals, as an address has it."""
    if not isinstance(sides, list) or len(sides) != 4 or {*map(type, sides)} - {int, float}:
        raise Refusal(422, "a box is four numbers")
    box = tuple(round(float(side), 4) for side in sides)
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise Refusal(422, "a box is left, top, right, bottom from 0 to 1")
    return box


def whole_number(text: str) -> int:
    """The number in an address; Refusal 404 if it is none."""
    if not _INDEX.fullmatch(text):
        raise Refusal(404, "not a number of a picture")
    return int(text)


def picture_index(session: Session, index: int) -> int:
    """The index of a picture that there is; Refusal 404 if there is none."""
    if index >= len(session.pictures):
        raise Refusal(404, "no such picture")
    return index
