"""Sorts pictures into folders by what a model says of them: `jaxgear predict --sort OUT`.

    OUT/<class>/        of this class
    OUT/none/           no gear (models trained with --backgrounds)
    OUT/review/         the likeliest class is not likely enough
    OUT/duplicates/     near-duplicates of the model's pictures, or of one that was sorted before
    OUT/sorted.csv      where each picture came from and went
    OUT/unreadable.csv  what could not be read, and why

Every readable picture lands once. A picture that `sorted.csv` names is never placed again, so a
person may move and remove files in OUT, and a second run goes on where the first one ended.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxgear.data.folder import Refused
from jaxgear.data.sources import InMemory
from jaxgear.data.splits import near_duplicates
from jaxgear.prediction.predictor import NONE, Prediction
from jaxgear.prediction.sorted_folder import HIDDEN, TABLE, UNREADABLE, SortedFolder

REVIEW, DUPLICATES = "review", "duplicates"
_MOST = 16384  # pictures that are placed at a time; each time near-duplicates are searched in all
_SECONDS = 5.0  # between writing predictions down: the work that a kill may cost


class Sorter:
    """Places the pictures of predictions below `out`. A context manager."""

    def __init__(
        self,
        out: Path,
        classes: Sequence[str],
        *,
        review_below: float,
        copy: bool = False,
        known: Iterable[bytes] = (),
    ):
        """Reads what an earlier run sorted, and finishes the last thing that it began.

        Args:
            classes: of the bundle.
            review_below: probability below which a picture goes to `review`.
            copy: files are copied, not hard links.
            known: descriptors of the model's own pictures, to find near-duplicates of them.

        Raises:
            UsageError: `out` cannot be written, is something else, or another process sorts there.
        """
        self._folder = SortedFolder(out, copy)
        self._classes, self._review_below = classes, review_below
        self._unreadable: dict[str, str] = {}
        self._placed = {row.sha256 for row in self._folder.rows}
        kept = self._folder.descriptors
        self._described = [*known, *(kept[sha256] for sha256 in self._placed & kept.keys())]
        self._pending = list(self._folder.noted)
        self._noted = len(self._pending)  # the first ones of `_pending` are written down
        self._next_note = time.monotonic() + _SECONDS
        self._new: dict[str, bytes] = {}  # descriptors of pending hashes that are placed nowhere
        for row in self._pending:
            if row.sha256 not in self._placed:
                self._new[row.sha256] = kept[row.sha256]

    def __enter__(self) -> "Sorter":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            if kind in (KeyboardInterrupt, SystemExit):  # a signal: what is predicted is placed
                self._flush()
        finally:
            self._folder.release()

    def left(self, files: Iterable[Path | Refused | InMemory]) -> list[Path | Refused | InMemory]:
        """The files that are not sorted yet, or have changed since.

        Those that a table cannot name are refused.

        Raises:
            UsageError: they cannot be placed in `out` by hard links.
        """
        left = [f for f in files if not isinstance(f, Path) or not self._folder.has(str(f))]
        first = next((file for file in left if isinstance(file, Path) and file.is_file()), None)
        if first is not None:
            self._folder.check(first)
        return [
            Refused(str(file), "name that is not UTF-8")
            if isinstance(file, Path) and not self._folder.can_note(str(file))
            else file
            for file in left
        ]

    def add(self, prediction: Prediction) -> None:
        """Takes a prediction of a file, with its descriptor; places it with the next ones."""
        if prediction.error is not None:
            self._unreadable[prediction.path] = prediction.error
            return
        if self._folder.has(prediction.path):
            return
        sha256, sure = prediction.sha256, float(prediction.probs.max())
        name = prediction.name(self._classes)
        folder = self._folder_of(prediction, name, sure)
        row = self._folder.row(prediction.path, sha256, folder, name, (sure, prediction.score))
        self._pending.append(row)
        if sha256 not in self._placed:
            self._new.setdefault(sha256, prediction.descriptor)
        if len(self._pending) >= _MOST:
            self._flush()
        elif time.monotonic() > self._next_note:
            self._note()

    def end(self) -> None:
        """Places the last pictures, and lists what was unreadable."""
        self._flush()
        self._folder.list_unreadable(self._unreadable)

    def counts(self) -> Counter[str]:
        """The number of pictures that were ever placed, by folder."""
        return Counter(row.folder for row in self._folder.rows)

    def _note(self) -> None:
        """Writes down what is pending."""
        rows = self._pending[self._noted :]
        new = {row.sha256: self._new[row.sha256] for row in rows if row.sha256 in self._new}
        self._folder.note(rows, new)
        self._noted = len(self._pending)
        self._next_note = time.monotonic() + _SECONDS

    def _flush(self) -> None:
        """Places what is pending."""
        if not self._pending:
            return
        self._note()
        before = len(self._described)
        groups = near_duplicates.groups([*self._described, *self._new.values()]).tolist()
        met = set(groups[:before])
        first = set()  # hashes of pictures that are like none before them
        for sha256, group in zip(self._new, groups[before:], strict=True):
            if group not in met:
                first.add(sha256)
            met.add(group)
        rows = []
        for row in self._pending:
            rows.append(row if row.sha256 in first else row._replace(file=DUPLICATES))
            first.discard(row.sha256)  # a copy of it is a duplicate
        self._described += self._new.values()
        self._placed |= self._new.keys()
        self._pending, self._noted, self._new = [], 0, {}
        self._folder.place(rows)  # last: a signal meanwhile must not place them again

    def _folder_of(self, prediction: Prediction, name: str, sure: float) -> str:
        """The folder of a picture that is like no other one."""
        if prediction.split is not None:
            return DUPLICATES
        if prediction.refused:
            return NONE
        return REVIEW if sure < self._review_below else folder_of(name)


def folder_of(name: str) -> str:
    """The folder of a class; a class that is named like another folder gets `class_` before it."""
    reserved = (NONE, REVIEW, DUPLICATES, TABLE, UNREADABLE, HIDDEN)
    taken = name.casefold() in reserved or name.casefold().startswith("class_")
    return f"class_{name}" if taken else name
