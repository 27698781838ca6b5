"""One person's review: what is shown of each picture, and what a decision does."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from jaxgear.data.images import ImageError
from jaxgear.data.labels import Correction, label_fault, now
from jaxgear.errors import DataError
from jaxgear.prediction import NONE
from jaxgear.serving.review.boxes import UNDONE, box_of, with_box
from jaxgear.serving.review.decisions import Decision, Decisions, Standing
from jaxgear.serving.review.files import PictureFiles
from jaxgear.serving.review.pictures import UNKNOWN, Pictures, Reason
from jaxgear.serving.review.predictions import REFUSED, Predictions

Show = Literal["all", "open", "done"]


class Session:
    """Pictures, predictions and decisions of a review. Threads may share it."""

    def __init__(
        self,
        pictures: Pictures,
        classes: Sequence[str],
        decisions: Decisions,
        by: str,
        predictions: Predictions | None,
        files: PictureFiles,
    ):
        self.pictures, self.classes, self.decisions = pictures, tuple(classes), decisions
        self.predictions, self.files, self.by = predictions, files, by
        self.done = np.zeros(len(pictures), bool)
        self._undone: set[int] = set()  # rows of ours after which a picture is undecided again
        self._lock = threading.Lock()
        self._label_of = {name: label for label, name in enumerate(self.classes)}
        self._suggested = np.array(
            [
                self._label_of.get(pictures.reasons.get(i, Reason()).predicted, UNKNOWN)
                for i in range(len(pictures) if pictures.reasons else 0)
            ],
            np.int32,
        )
        self._by_name = {pictures.name(i): i for i in range(len(pictures))}
        self._by_sha256: dict[str, list[int]] = defaultdict(list)
        for index, sha256 in enumerate(pictures.sha256):
            if sha256:
                self._by_sha256[sha256].append(index)
        self._update(decisions.rows)

    def close(self) -> None:
        """Ends the predictions."""
        if self.predictions is not None:
            self.predictions.close()

    def refresh(self) -> None:
        """Takes over what others have added to the corrections file."""
        with self._lock:
            self._refresh()

    def groups(self) -> Int[np.ndarray, " N"]:
        """The class under which each picture is shown: its label, of a new one its predicted class.

        UNKNOWN: none yet; REFUSED: no gear.
        """
        if not self.pictures.new:
            return self.pictures.labels
        groups = np.full(len(self.pictures), UNKNOWN, np.int32)
        if len(self._suggested):
            groups = self._suggested.copy()
        if self.predictions is not None:
            known = self.predictions.best != UNKNOWN
            groups[known] = self.predictions.best[known]
        return groups

    def matching(self, show: Show = "all", group: int | None = None) -> Int[np.ndarray, " n"]:
        """Indices of the pictures of one group (None: all), decided on or not, in order."""
        chosen = (
            np.full(len(self.pictures), True) if show == "all" else self.done == (show == "done")
        )
        if group is not None:
            chosen = chosen & (self.groups() == group)
        return np.flatnonzero(chosen)

    def describe(self, index: int) -> dict[str, Any]:
        """What is shown of a picture, as JSON.

        `label` (as the set has it), `current` (after corrections), `removed`, `done` (a person has
        decided), `box` (`box_of`), `version`, `by` and `note` (of the row that holds), `reason`
        (of the queue), `predicted` with `probability`, `accept` (what accepting it decides), and
        `error`.
        """
        with self._lock:
            self._look(index)
            holds = self._standing(index)
        label = self._name(int(self.pictures.labels[index]))
        removed = holds.row is not None and holds.row.action == "remove"
        removed = removed and not (self.pictures.new and holds.row.label == UNDONE)
        current = holds.row.label if holds.row and holds.row.action != "remove" else label
        reason = self.pictures.reasons.get(index, Reason())
        predicted, probability = reason.predicted, reason.probability
        if self.predictions is not None and self.predictions.best[index] != UNKNOWN:
            predicted = self._name(int(self.predictions.best[index]))
            probability = f"{self.predictions.sure[index]:.2f}"
        found = {
            "index": index,
            "name": self.pictures.shown(index),
            "box": box_of(self.pictures, index),
            "label": label,
            "current": current,
            "removed": removed,
            "done": bool(self.done[index]),
            "version": holds.version,
            "by": holds.row.by if holds.row else None,
            "note": holds.row.label if removed else "",
            "reason": {"kind": reason.kind, "score": reason.score, "suggested": reason.suggested},
            "predicted": predicted or None,
            "probability": probability,
            "error": self.files.errors.get(index),
        }
        return found | {"accept": self._accepted(found)}

    def _accepted(self, found: dict[str, Any]) -> dict[str, str] | None:
        """What accepting a picture as `describe` shows it decides; None: nothing to accept."""
        suggested = found["reason"]["suggested"]
        if found["removed"] or (not found["done"] and suggested == "remove"):
            return {"action": "remove", "label": found["note"]}
        if found["done"] and found["current"]:
            return {"action": "label", "label": found["current"]}
        for name in (suggested, found["current"], found["predicted"]):
            if name in self._label_of:
                return {"action": "label", "label": name}
        return None

    def decide(self, wanted: Sequence[Decision]) -> tuple[bool, list[int]]:
        """Writes decisions as one addition to the file; returns once they are on disk.

        If somebody decided on one of these pictures after the version that was seen, nothing is
        written.

        Returns:
            Whether they were written; then the pictures that they changed (copies of a picture
            too), else those that somebody else changed.

        Raises:
            DataError: the picture cannot be read, so only removal makes sense; not a usable label.
            UsageError: the file cannot be written.
        """
        hashes = [self._hash(decision) for decision in wanted]
        with self._lock:
            while True:
                self._refresh()
                for decision in wanted:
                    self._look(decision.index)
                stale = [d.index for d in wanted if self._standing(d.index).version != d.version]
                if stale:
                    return False, stale
                before = self.decisions.rows
                rows, undone = [], set()
                for decision, sha256 in zip(wanted, hashes, strict=True):
                    row, open_again = self._row(decision, sha256)
                    rows += with_box(row, decision, self.pictures, before)
                    if open_again:
                        undone.add(len(before) + len(rows))
                if self.decisions.add(rows):
                    self._undone |= undone
                    return True, self._update(rows)

    def _hash(self, decision: Decision) -> str:
        index, action = decision.index, decision.action
        if action == "label" and (fault := label_fault(decision.label)):
            raise DataError(fault)
        try:
            sha256 = self.files.sha256(index)
        except ImageError:
            sha256 = self.pictures.sha256[index]
        if action == "label" and (reason := self.files.errors.get(index)):
            raise DataError(f"{self.pictures.shown(index)}: {reason}; it can only be removed")
        return sha256

    def _row(self, decision: Decision, sha256: str) -> tuple[Correction, bool]:
        """The row of a decision, and whether the picture is undecided after it."""
        index, new = decision.index, self.pictures.new
        action, label, open_again = decision.action, decision.label, False
        if action == "undo":
            before = self._standing(index, decision.row).row
            open_again = before is None or before.by_program
            if before is not None:
                action, label = before.action, before.label
            elif new:
                action, label = "remove", UNDONE
            else:
                action, label = "relabel", self._name(int(self.pictures.labels[index]))
        elif action == "label":
            action = "add" if new else "relabel"
        return Correction(
            self.pictures.name(index), sha256, action, label, self.by, now()
        ), open_again

    def _standing(self, index: int, before: int | None = None) -> Standing:
        sha256 = self.files.known_sha256(index)
        return self.decisions.of(sha256, self.pictures.name(index), before)

    def _refresh(self) -> None:
        rows = self.decisions.refresh()
        if rows is None:  # edited by hand: our row numbers mean nothing any more
            self._undone.clear()
            self.done[:] = False
            rows = self.decisions.rows
        self._update(rows)

    def _update(self, rows: Sequence[Correction]) -> list[int]:
        """Brings `done` up to date after new rows; returns the pictures that they are about."""
        touched = {i for row in rows for i in self._by_sha256.get(row.sha256, ())}
        touched |= {i for row in rows if (i := self._by_name.get(row.path)) is not None}
        for index in touched:
            self._check_done(index)
        return sorted(touched)

    def _look(self, index: int) -> None:
        """Takes over the hash of a picture that was read meanwhile."""
        sha256 = self.files.known_sha256(index)
        if sha256 and index not in (same := self._by_sha256[sha256]):
            same.append(index)
            self._check_done(index)

    def _check_done(self, index: int) -> None:
        holds = self._standing(index)
        row = holds.row
        undone = row is not None and self.pictures.new and row.action == "remove"
        undone = (undone and row.label == UNDONE) or holds.version in self._undone
        self.done[index] = row is not None and not row.by_program and not undone

    def _name(self, label: int) -> str | None:
        if label == REFUSED:
            return NONE
        return None if label == UNKNOWN else self.classes[label]
