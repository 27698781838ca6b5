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

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from jaxgear.data.folder import Refused
from jaxgear.data.sources import InMemory
from jaxgear.data.splits import near_duplicates
from jaxgear.prediction.predictor import NONE, Prediction
from jaxgear.prediction.sorted_folder import HIDDEN, TABLE, UNREADABLE, Placed, SortedFolder

REVIEW, DUPLICATES = "review", "duplicates"
_LEAST, _MOST = 4096, 16384  # pictures that are placed at a time


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
        self._pending: list[Prediction] = []
        self._unreadable: dict[str, str] = {}
        self._descriptors = [*known, *self._folder.descriptors]
        self._sha256 = {row.sha256 for row in self._folder.rows}

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

        Raises:
            UsageError: they cannot be placed in `out` by hard links.
        """
        left = [f for f in files if not isinstance(f, Path) or not self._folder.has(str(f))]
        first = next((file for file in left if isinstance(file, Path) and file.is_file()), None)
        if first is not None:
            self._folder.check(first)
        return left

    def add(self, prediction: Prediction) -> None:
        """Takes a prediction of a file, with its descriptor; places it with the next ones."""
        if prediction.error is not None:
            self._unreadable[prediction.path] = prediction.error
            return
        if self._folder.has(prediction.path):
            return
        self._pending.append(replace(prediction, image=None))
        # Near-duplicates are searched among all each time, so ever more are placed at once.
        if len(self._pending) >= min(max(_LEAST, len(self._descriptors) // 2), _MOST):
            self._flush()

    def end(self) -> None:
        """Places the last pictures, and lists what was unreadable."""
        self._flush()
        self._folder.list_unreadable(self._unreadable)

    def counts(self) -> Counter[str]:
        """The number of pictures that were ever placed, by folder."""
        return Counter(row.folder for row in self._folder.rows)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        new = {p.sha256: p.descriptor for p in pending if p.sha256 not in self._sha256}
        self._sha256 |= new.keys()
        before = len(self._descriptors)
        self._descriptors += new.values()
        groups = near_duplicates.groups(self._descriptors).tolist()
        met = set(groups[:before])
        first = set()  # hashes of pictures that are like none before them
        for sha256, group in zip(new, groups[before:], strict=True):
            if group not in met:
                first.add(sha256)
            met.add(group)
        rows = []
        for prediction in pending:
            alike = prediction.split is not None or prediction.sha256 not in first
            first.discard(prediction.sha256)  # a copy of it is a duplicate
            rows.append(self._row(prediction, DUPLICATES if alike else self._of(prediction)))
        self._folder.place(rows, new)

    def _of(self, prediction: Prediction) -> str:
        """The folder of a picture that is no duplicate."""
        if prediction.refused:
            return NONE
        if prediction.probs.max() < self._review_below:
            return REVIEW
        return folder_of(prediction.name(self._classes))

    def _row(self, prediction: Prediction, folder: str) -> Placed:
        return self._folder.row(
            prediction.path,
            prediction.sha256,
            folder,
            prediction.name(self._classes),
            (float(prediction.probs.max()), prediction.score),
        )


def folder_of(name: str) -> str:
    """The folder of a class; a class that is named like another folder gets `class_` before it."""
    reserved = (NONE, REVIEW, DUPLICATES, TABLE, UNREADABLE, HIDDEN)
    taken = name.casefold() in reserved or name.casefold().startswith("class_")
    return f"class_{name}" if taken else name
