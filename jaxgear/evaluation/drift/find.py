"""Compares new pictures with those that a run knows but did not learn: `find_drift`.

A network's outputs on pictures that it was trained on differ from those on others, so the reference
is the validation and the test split of the run. S. Rabanser, S. Günnemann, Z. Lipton, "Failing
Loudly: An Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019, compare such
tests: a two-sample test on a network's outputs does best.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgear.data.folder import Column, Folder, Record, labels_of
from jaxgear.errors import CheckpointError, DataError
from jaxgear.evaluation.drift.pictures import choose_new, choose_reference, known_pictures
from jaxgear.evaluation.drift.two_sample import Comparison, compare, holm
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.network_features import Network
from jaxgear.text import text_of

LEAST = 5  # new pictures, and pictures of the reference, for a test; also of a class
NEIGHBOURS = 5
FOREIGN = 24  # pictures that are named
LEVEL = 0.05  # p-values below are called different


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A new picture and how far it is from the reference."""

    record: Record
    predicted: str  # class
    distance: float  # to the fifth nearest picture of the reference, features of length 1
    farther_than: float  # share of the reference that is nearer to the rest of the reference


@dataclasses.dataclass(frozen=True)
class Drift:
    """The result. `reason` says why there is no p-value; it is empty if there is one."""

    folder: Folder
    n: int = 0  # new pictures that were compared
    known: int = 0  # pictures in the folder that the run has, or near-duplicates of them
    reference: int = 0
    statistic: float | None = None
    p_value: float | None = None
    classes_by: str = "label"  # or "prediction", if the run does not know each label
    by_class: dict[str, dict[str, float | int | None]] = dataclasses.field(default_factory=dict)
    most_foreign: tuple[Foreign, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value of `drift` in the JSON of `check`."""
        names = ("p_value", "statistic", "n", "reference", "known", "classes_by", "by_class")
        foreign = [
            {
                "path": text_of(one.record.path),
                "predicted": one.predicted,
                "distance": round(one.distance, 4),
                "farther_than": round(one.farther_than, 4),
            }
            for one in self.most_foreign
        ]
        fields = {name: getattr(self, name) for name in names}
        return fields | {"most_foreign": foreign, "reason": self.reason}

    def lines(self) -> list[str]:
        """The result as lines to print."""
        if self.p_value is None:
            return [f"drift: not tested: {self.reason}"]
        verdict = "look different" if self.p_value < LEVEL else "look like those of the run"
        text = [
            f"drift: {self.n} new pictures {verdict} (p = {self.p_value:.4f}, against "
            f"{self.reference} pictures that it did not train on)"
        ]
        for name, row in self.by_class.items():
            p = "too few" if row["p_value"] is None else f"p = {row['p_value']:.4f}"
            text.append(f"  {name:24} {row['n']:6} new {row['reference']:6} known  {p}")
        text.append(f"  classes by {self.classes_by}; their p-values are Holm's, for all classes")
        return text


def find_drift(run: FinishedRun, folder: Folder, source: str | None = None) -> Drift:
    """Whether the pictures of a folder that the run does not have look like those that it has.

    Args:
        folder: new pictures alone, or the run's pictures with new ones, or a heap.
        source: where the run's pictures are now; None: in `folder`, or where its config says.

    Raises:
        DataError: the run's pictures are not at `source`. Without `source`, and in other cases
            without a test, the result has a `reason`.
    """
    try:
        network = Network.load(run.path)
        known = known_pictures(run, folder, source, network.bundle.size)
    except (CheckpointError, DataError) as error:
        if source:
            raise
        return Drift(folder, reason=str(error))
    fresh, apart = choose_new(run, folder, known)
    reference, names = choose_reference(run, known)
    old = len(folder.records) - apart
    result = Drift(folder, n=len(fresh), known=old, reference=len(reference))
    for count, what in ((len(fresh), "new pictures"), (len(reference), "held-out pictures")):
        if count < LEAST:
            return dataclasses.replace(result, reason=f"{count} {what}, at least {LEAST} needed")
    return _compared(result, network, known, reference, names, fresh)


def _compared(
    result: Drift,
    network: Network,
    known: Folder,
    reference: Sequence[Record],
    names: Sequence[str],
    fresh: Sequence[Record],
) -> Drift:
    """The result with the tests and the most foreign pictures."""
    classes = network.bundle.classes
    a, a_logits = network(result.folder, fresh)
    b, b_logits = network(known, reference)
    given = Column(labels_of(fresh), result.folder.classes.__getitem__)
    labelled = set(given) <= set(classes)
    if labelled:
        a_classes, b_classes = (
            np.array([classes.index(name) for name in side]) for side in (given, names)
        )
    else:  # the same rule for both sides: they stay exchangeable
        a_classes, b_classes = a_logits.argmax(axis=1), b_logits.argmax(axis=1)
    whole, parts = compare(a, b, a_classes, b_classes)
    return dataclasses.replace(
        result,
        statistic=whole and whole.statistic,
        p_value=whole and whole.p_value,
        reason="" if whole else "no class is both among the new and the held-out pictures",
        classes_by="label" if labelled else "prediction",
        by_class=_by_class(classes, parts, a_classes, b_classes),
        most_foreign=_foreign(fresh, a, b, [classes[i] for i in a_logits.argmax(axis=1)]),
    )


def _by_class(
    classes: Sequence[str],
    parts: Mapping[int, Comparison],
    a_classes: Int[np.ndarray, " N"],
    b_classes: Int[np.ndarray, " M"],
) -> dict[str, dict[str, float | int | None]]:
    """A row for each class with new pictures: `p_value` (Holm's) and `uncorrected`, or None if it
    has fewer than `LEAST` on either side; `n` and `reference`.
    """
    enough = [i for i, part in parts.items() if min(part.n, part.reference) >= LEAST]
    corrected = dict(zip(enough, holm([parts[i].p_value for i in enough]), strict=True))
    return {
        classes[i]: {
            "p_value": corrected.get(i),
            "uncorrected": parts[i].p_value if i in corrected else None,
            "n": int((a_classes == i).sum()),
            "reference": int((b_classes == i).sum()),
        }
        for i in np.unique(a_classes).tolist()
    }


def _foreign(
    fresh: Sequence[Record],
    a: Float[np.ndarray, "N D"],
    b: Float[np.ndarray, "M D"],
    predicted: Sequence[str],
) -> tuple[Foreign, ...]:
    """The new pictures that are farthest from the reference, the farthest first."""
    far, usual = nearest(a, b), np.sort(nearest(b, b, skip_first=True))
    nearer = np.searchsorted(usual, far) / len(usual)
    order = np.argsort(-far, kind="stable")[:FOREIGN]
    return tuple(Foreign(fresh[i], predicted[i], float(far[i]), float(nearer[i])) for i in order)


def nearest(
    a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"], skip_first: bool = False
) -> Float[np.ndarray, " N"]:
    """The distance from each row of a to its `NEIGHBOURS`-th nearest row of b.

    `skip_first`: a is b, so the nearest row is the row itself.
    """
    square = np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T, 0)
    place = min(NEIGHBOURS - 1 + skip_first, len(b) - 1)
    return np.sqrt(np.partition(square, place, axis=1)[:, place])
