"""What a classifier is worth, as numbers on small tables. numpy alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgear.evaluation.calibration import expected_calibration_error, log_softmax

NEW = "new"  # a split for pictures that are not of the model's data
WORDS = {
    "train": "trained on",
    "val": "validated on",
    "test": "tested on",
    "left_out": "left out",
    NEW: "new",
}
OF_A_SPLIT = ("accuracy", "n", "interval95", "macro_f1")


def confusion_matrix(
    labels: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "K K"]:
    """Counts; rows are the true class, columns the predicted one."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def most_confused(
    confusion: Int[np.ndarray, "K K"], classes: Sequence[str], most: int
) -> tuple[Int[np.ndarray, "M M"], list[str]]:
    """A table of `most` classes at most, and their names: of more, those with the most mistakes, in
    their order, and all others as one, so that every picture still counts.
    """
    if len(classes) <= most:
        return confusion, list(classes)
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    place = np.full(len(classes), most - 1)
    place[kept] = np.arange(most - 1)
    table = np.zeros((most, most), confusion.dtype)
    np.add.at(table, (place[:, None], place[None, :]), confusion)
    return table, [*(classes[i] for i in kept), f"{len(classes) - most + 1} others"]


def per_class(confusion: Int[np.ndarray, "K K"]) -> list[dict[str, float]]:
    """Precision, recall, F1 and the number of pictures of each class; 0 where undefined."""
    right = np.diag(confusion).astype(float)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = _ratio(right, predicted)
    recall = _ratio(right, true)
    f1 = _ratio(2 * right, predicted + true)
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
        for p, r, f, n in zip(precision, recall, f1, true, strict=True)
    ]


def macro_f1(confusion: Int[np.ndarray, "K K"]) -> float:
    """Mean F1 of the classes that have pictures, each counting alike."""
    return float(np.mean([row["f1"] for row in per_class(confusion) if row["n"]]))


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a proportion, 95 % by default (Wilson 1927): inside [0, 1], sound at 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    # At 0 and n the bound is exact; rounding may leave it 1e-17 outside.
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


def summarise(
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    temperature: float,
) -> dict[str, Any]:
    """The fields of `test.json`, all but `epoch`. Loss is the mean cross-entropy in nats, of the
    logits as they are; `ece` is the calibration error of the probabilities at `temperature`.
    """
    log_probs = log_softmax(logits)
    predicted = logits.argmax(axis=1)
    table = confusion_matrix(labels, predicted, len(classes))
    right = int((predicted == labels).sum())
    probs = np.exp(log_softmax(logits, temperature))
    return {
        "accuracy": right / len(labels),
        "loss": float(-log_probs[np.arange(len(labels)), labels].mean()),
        "n": len(labels),
        "interval95": list(wilson_interval(right, len(labels))),
        "macro_f1": macro_f1(table),
        "ece": expected_calibration_error(probs, labels),
        "temperature": temperature,
        "per_class": dict(zip(classes, per_class(table), strict=True)),
        "confusion": table.tolist(),
    }


def by_split(
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    splits: Sequence[str | None],
) -> dict[str, dict[str, Any]]:
    """`accuracy, n, interval95, macro_f1` of the pictures in each split of the model's data,
    and of the `NEW` ones, whose split is None; of those splits alone that have pictures.
    """
    names = np.array([split or NEW for split in splits], object)
    found = {}
    for name in WORDS:
        if (rows := names == name).any():
            summary = summarise(logits[rows], labels[rows], classes, 1.0)
            found[name] = {key: summary[key] for key in OF_A_SPLIT}
    return found


def known_pictures(splits: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A sentence about `by_side` where a model was made with some of the pictures, else None."""
    total = sum(found["n"] for found in splits.values())
    if (known := total - splits.get(NEW, {"n": 0})["n"]) == 0:
        return None
    parts = (f"{f['n']} {WORDS[name]} {f['accuracy']:.4f}" for name, f in splits.items())
    return (
        f"{known} of {total} are in the data of this model; accuracy by split: {', '.join(parts)}"
    )


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
