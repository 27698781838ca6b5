"""Metrics of a classifier, from tables of logits and labels, in NumPy.

`METRICS` lists the metrics of `test.json`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgear.evaluation.calibration import expected_calibration_error, log_softmax

NEW = "new"  # in place of a split: an image that is not in the model's data
WORDS = {
    "train": "trained on",
    "val": "validated on",
    "test": "tested on",
    "left_out": "left out",
    NEW: "new",
}


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
    """A confusion matrix of at most `most` classes, and their names.

    With more classes, those with the most mistakes stay, in their order. All others share one row
    and column, so that every image still counts.
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
    """Precision, recall, F1 and number of images of each class; 0 where undefined."""
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
    """Mean F1 over the classes that have images."""
    return float(np.mean([row["f1"] for row in per_class(confusion) if row["n"]]))


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a proportion, 95 % by default, within [0, 1] (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    # The bound is exact at 0 and n; rounding may put it 1e-17 outside.
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


@dataclass(frozen=True)
class Tested:
    """Logits and labels of a set of images, from which metrics are computed."""

    logits: Float[np.ndarray, "N K"]
    labels: Int[np.ndarray, " N"]
    temperature: float = 1.0

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, "K K"]:
        """`confusion_matrix` of the predictions."""
        return confusion_matrix(self.labels, self.logits.argmax(axis=1), self.logits.shape[1])

    @property
    def right(self) -> int:
        """The number of images whose likeliest class is their label."""
        return int(np.trace(self.confusion))

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without the temperature."""
        rows = np.arange(len(self.labels))
        return float(-log_softmax(self.logits)[rows, self.labels].mean())

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the probabilities at the temperature."""
        probs = np.exp(log_softmax(self.logits, self.temperature))
        return expected_calibration_error(probs, self.labels)


@dataclass(frozen=True)
class Metric:
    """A figure of `test.json`: how it is computed, how it is written, and where it is shown."""

    name: str  # its key in `test.json` and `evaluate --json`
    title: str  # for people
    compute: Callable[[Tested], Any]
    text: Callable[[Any, int], str] = lambda value, digits: f"{value:.{digits}f}"
    in_line: bool = True  # the line that `evaluate` prints
    on_page: str = ""  # its title at the top of a report; "": not there
    in_runs: str = ""  # its key in `compare`; "": not there
    of_sets: bool = False  # in the tables of robustness
    of_splits: bool = False  # in `by_side`


# Add a metric here, and evaluate, compare, the report and robustness show it.
METRICS = (
    Metric("accuracy", "accuracy", lambda tested: tested.right / len(tested.labels),
           on_page="Test accuracy", in_runs="test_accuracy", of_sets=True, of_splits=True),
    Metric("interval95", "95 % interval",
           lambda tested: list(wilson_interval(tested.right, len(tested.labels))),
           text=lambda value, digits: " to ".join(f"{bound:.{digits}f}" for bound in value),
           on_page="95 % interval", of_splits=True),
    Metric("loss", "loss", lambda tested: tested.loss,
           on_page="Test loss (nats)", in_runs="test_loss"),
    Metric("macro_f1", "macro-F1", lambda tested: macro_f1(tested.confusion),
           on_page="Macro-F1", in_runs="macro_f1", of_sets=True, of_splits=True),
    Metric("ece", "calibration error", lambda tested: tested.calibration_error),
    Metric("n", "n", lambda tested: len(tested.labels), text=lambda value, digits: str(value),
           on_page="Test pictures", of_sets=True, of_splits=True),
    Metric("temperature", "temperature", lambda tested: tested.temperature, in_line=False),
)  # fmt: skip


def summarise(
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    temperature: float,
) -> dict[str, Any]:
    """The fields of `test.json` that depend on predictions: `METRICS`, figures of each class, and
    the confusion matrix.
    """
    tested = Tested(logits, labels, temperature)
    return {metric.name: metric.compute(tested) for metric in METRICS} | {
        "per_class": dict(zip(classes, per_class(tested.confusion), strict=True)),
        "confusion": tested.confusion.tolist(),
    }


def by_split(
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
    splits: Sequence[str | None],
) -> dict[str, dict[str, Any]]:
    """Metrics of the images in each split of the model's data, and of `NEW` images (None)."""
    return by_group(logits, labels, [split or NEW for split in splits], WORDS)


def by_group(
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
    groups: Sequence[str],
    order: Iterable[str],
) -> dict[str, dict[str, Any]]:
    """Metrics of the images in each group, in the given order; groups without images are left out.

    `groups` has the group of each image.
    """
    names = np.array(groups, object)
    return {
        name: {
            metric.name: metric.compute(Tested(logits[rows], labels[rows]))
            for metric in METRICS
            if metric.of_splits
        }
        for name in order
        if (rows := names == name).any()
    }


def known_pictures(splits: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A sentence about `by_split` if some images are in the model's data, else None."""
    total = sum(figures["n"] for figures in splits.values())
    if (known := total - splits.get(NEW, {"n": 0})["n"]) == 0:
        return None
    parts = (f"{f['n']} {WORDS[name]} {f['accuracy']:.4f}" for name, f in splits.items())
    return (
        f"{known} of {total} are in the data of this model; accuracy by split: {', '.join(parts)}"
    )


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
