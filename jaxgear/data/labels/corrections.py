"""The corrections file: what people and programs say about the labels of a set.

CSV with the columns `path,sha256,action,label,by,when`, one row for each decision, in the order in
which they were made. Rows are only ever added, so the file is also the history.

    action    label                  meaning
    relabel   the class              the picture is of this class (this also undoes a removal)
    remove    the reason, or empty   the picture is kept out
    add       the class              the picture, outside the set, is trained on too

`sha256` (of the file, hex) names the picture; `path` is for people, and names the picture where
`sha256` is empty. `by` is a person, or a program: `jaxgear` or `jaxgear COMMAND`. `when` is ISO
8601. The last decision about a picture holds, but a program's never replaces a person's.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from jaxgear.data.labels.rows import append_rows, whole_rows
from jaxgear.errors import DataError, UsageError
from jaxgear.files import read_regular
from jaxgear.text import printable

ACTIONS = ("relabel", "remove", "add")
MAX_BYTES = 2**30
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Correction:
    """One row of a corrections file."""

    path: str
    sha256: str  # hex, or "": then `path` names the picture
    action: str  # one of ACTIONS
    label: str  # a class; of "remove" the reason
    by: str
    when: str  # ISO 8601

    @property
    def by_program(self) -> bool:
        """Whether jaxgear itself made it, so that a person's decision stands above it."""
        return _is_program(self.by)

    def change(self, path: str, before: str) -> dict[str, str]:
        """Its entry in `Folder.changes`: `before` is the class of the image at `path`; "": none."""
        action = "relabel" if before and self.action == "add" else self.action
        change = {"path": path, "action": action, "before": before, "label": self.label}
        return change | {"by": self.by, "when": self.when}

    def fault(self) -> str | None:
        """Why the row cannot be used, or None."""
        if self.action not in ACTIONS:
            return f"action {printable(self.action)!r}, expected {', '.join(ACTIONS)}"
        if self.sha256 and not _SHA256.match(self.sha256):
            return f"sha256 {printable(self.sha256)!r}, expected 64 hex digits"
        if not (self.path or self.sha256):
            return "neither path nor sha256"
        return None if self.action == "remove" else label_fault(self.label)


FIELDS = tuple(field.name for field in fields(Correction))


def label_fault(label: str) -> str | None:
    """Why a text cannot be the name of a class (and of a folder), or None."""
    if not label.strip() or label in (".", ".."):
        return "no label" if not label.strip() else f"label {label!r} is no name"
    if printable(label) != label or re.search(r"[/\\]", label):
        return f"label {printable(label)!r} holds a slash or a control character"
    return None


def now() -> str:
    """The present second in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_corrections(path: Path) -> tuple[Correction, ...]:
    """The rows of a corrections file.

    A last line that a killed program left unfinished does not count.

    Raises:
        DataError: no such file, not a corrections file, or a row that cannot be used.
    """
    try:
        data = read_regular(path, MAX_BYTES)
        text = whole_rows(data, len(FIELDS)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path}: cannot be read as corrections ({reason})") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    corrections = []
    try:
        if not rows.fieldnames or set(FIELDS) - set(rows.fieldnames):
            raise DataError(f"{path}: not a corrections file; its columns are {','.join(FIELDS)}")
        for row in rows:
            label = unicodedata.normalize("NFC", row["label"].strip())  # as names of folders are
            correction = Correction(*((row | {"label": label})[name] for name in FIELDS))
            if fault := correction.fault():
                raise DataError(f"{path}, line {rows.line_num}: {fault}")
            corrections.append(correction)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from None
    return tuple(corrections)


def append(
    path: Path, corrections: Iterable[Correction], at: int | None = None
) -> os.stat_result | None:
    """Adds rows to a corrections file, which is made if need be; returns once they are on disk.

    Several processes may append to one file.

    Args:
        at: the size in bytes of the file as the caller knows it (0: no file). If it has another
            size by now, somebody else wrote to it, and nothing is added.

    Returns:
        The status of the file with these rows; None if nothing was added.

    Raises:
        UsageError: the file cannot be written, or is something else.
    """
    try:
        return append_rows(path, FIELDS, map(astuple, corrections), at)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


def standing(corrections: Iterable[Correction]) -> list[Correction]:
    """The decision that holds for each picture, in the order of their last rows."""
    holds: dict[str, Correction] = {}
    for correction in corrections:
        key = correction.sha256 or correction.path
        before = holds.get(key)
        if before is not None and correction.by_program and not before.by_program:
            continue
        holds.pop(key, None)
        holds[key] = correction
    return list(holds.values())


def standing_with_places(corrections: Sequence[Correction], present: set[str]) -> list[Correction]:
    """The rows that hold. A picture that was added, and relabelled later, is still an addition."""
    places = {row.sha256: row.path for row in corrections if row.action == "add" and row.sha256}
    return [
        replace(row, action="add", path=places[row.sha256])
        if row.action == "relabel" and row.sha256 in places and row.sha256 not in present
        else row
        for row in standing(corrections)
    ]


def summary(changes: Iterable[Mapping[str, str]]) -> str:
    """What corrections changed (`Folder.changes`), in one line; with what a program decided."""
    changes = list(changes)
    counts = Counter(change["action"] for change in changes)
    words = {"relabel": "relabelled", "remove": "removed", "add": "added"}
    text = ", ".join(f"{counts[action]} {word}" for action, word in words.items())
    programs = sum(_is_program(change["by"]) for change in changes)
    return text + (f" ({programs} by jaxgear itself)" if programs else "")


def _is_program(by: str) -> bool:
    return by.split(" ")[0] == "jaxgear"
