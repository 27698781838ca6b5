"""Features of pictures by the network of a run, kept in the user's cache folder."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxgear.bundle import Bundle
from jaxgear.cache import Entries
from jaxgear.data.folder import Folder, Record, stored_pictures
from jaxgear.evaluation.no_gear import evidence
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.prediction import Predictor

_CHUNK = 256  # pictures at a time


@dataclasses.dataclass(frozen=True)
class Network:
    """The network of a run, as a function from pictures to features and logits."""

    bundle: Bundle
    name: str  # of its cache entries; changes with every file of the bundle

    @classmethod
    def load(cls, run: Path) -> "Network":
        """The bundle of a run; CheckpointError if it is missing or damaged."""
        bundle = Bundle.load(run)
        card = run / "model" / "bundle.json"
        card = card if card.is_file() else run / "bundle.json"
        return cls(bundle, hashlib.sha256(card.read_bytes()).hexdigest()[:16])

    def __call__(
        self, folder: Folder, records: Sequence[Record]
    ) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
        """Features of length 1, the inputs of the last layer (its logits where it is not dense),
        and logits.

        Raises:
            DataError: a file changed since it was checked.
        """
        classes, head = len(self.bundle.classes), self.bundle.program.head
        width = self.bundle.weights[f"{head}/kernel"].shape[0] if head else classes
        none = np.zeros((0, width), np.float32), np.zeros((0, classes), np.float32)
        features, logits = zip(none, *self.blocks(folder, records), strict=True)
        return np.concatenate(features), np.concatenate(logits)

    def blocks(
        self, folder: Folder, records: Sequence[Record]
    ) -> Iterator[tuple[Float[np.ndarray, "n D"], Float[np.ndarray, "n K"]]]:
        """What a call returns, for a few hundred records at a time."""
        for start in range(0, len(records), _CHUNK):
            table = self._rows(folder, records[start : start + _CHUNK])
            features, logits = np.split(table, [-len(self.bundle.classes)], axis=1)
            if not features.shape[1]:
                features = logits
            length = np.linalg.norm(features, axis=1, keepdims=True)
            yield features / np.maximum(length, 1e-12), logits

    def _rows(self, folder: Folder, records: Sequence[Record]) -> Float[np.ndarray, "n C"]:
        """The outputs of `_compute`, kept or computed."""
        kept = Entries(f"outputs/{self.name}")
        rows: dict[str, np.ndarray] = {}
        for record in records:
            if (body := kept.read(record.sha256)) is not None and len(body) % 4 == 0:
                rows[record.sha256] = np.frombuffer(body, np.float32)
        missing = tuple({r.sha256: r for r in records if r.sha256 not in rows}.values())
        if missing:
            split = dataclasses.replace(folder, records=missing)
            images = stored_pictures(split, self.bundle.size)[:]
            for record, row in zip(missing, self._compute(images), strict=True):
                rows[record.sha256] = row
                kept.write(record.sha256, row.tobytes())
        return np.stack([rows[record.sha256] for record in records])

    @functools.cached_property
    def _compute(self) -> Callable[[Any], Float[np.ndarray, "N C"]]:
        """From images to features, if the last layer is dense, then logits. Compiled once."""
        keep_compiled()
        bundle, head = self.bundle, self.bundle.program.head
        if head is None:
            return Predictor(bundle).logits
        features_of = evidence.features_of(bundle.program, bundle.weights)

        def compute(images: Any) -> Float[np.ndarray, "N C"]:
            features = features_of(images)
            logits = evidence.logits_of(bundle.weights, head, features)
            return np.concatenate([features, logits], axis=1).astype(np.float32)

        return compute
