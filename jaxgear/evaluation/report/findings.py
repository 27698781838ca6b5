"""Computes the parts of a report that need the model and the images of a run."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.folder import Folder, LazyPictures, stored_pictures
from jaxgear.data.images import letterbox
from jaxgear.data.recorded import Pictures, SplitRow
from jaxgear.errors import CheckpointError
from jaxgear.evaluation import calibration, explain, metrics
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.no_gear import refusal
from jaxgear.evaluation.own_pictures import only, open_source, trained_on_test, warnings_of
from jaxgear.evaluation.report.near_duplicates import (
    THUMBNAIL,
    NearDuplicates,
    find_near_duplicates,
)
from jaxgear.prediction import NONE, Predictor

TOP_LOSSES = 24
TOP_REFUSED = 12


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image with its prediction."""

    picture: SplitRow
    predicted: str  # the likeliest class
    prob: float  # of that class, calibrated
    label_prob: float  # of the labelled class
    score: float  # `Bundle.score`
    refused: bool  # the score is below the threshold: no gear
    image: UInt8[np.ndarray, "T T 3"]
    overlay: UInt8[np.ndarray, "T T 3"] | None  # heat map of `predicted`; None: not available

    @property
    def loss(self) -> float:
        """Cross-entropy in nats."""
        return -float(np.log(max(self.label_prob, 1e-12)))

    @property
    def verdict(self) -> str:
        """Class and probability, or `NONE` and score, as `predict` prints them."""
        return f"{NONE} {self.score:.2f}" if self.refused else f"{self.predicted} {self.prob:.2f}"


@dataclasses.dataclass(frozen=True)
class Refusals:
    """Test images that the model refuses as no gear; all of them show gear."""

    promise: str  # the share that the threshold accepts, by kind of image
    right: int  # images whose likeliest class is their label
    by_class: dict[str, int]  # of the label
    lowest: list[Shown]  # the lowest scores first

    @property
    def n(self) -> int:
        """The number of refused images."""
        return sum(self.by_class.values())


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Bins and calibration error of the test split, without and with the temperature."""

    temperature: float
    before: list[calibration.Bin]
    after: list[calibration.Bin]
    error_before: float
    error_after: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that a report computes."""

    summary: dict[str, Any]  # as test.json
    misses: list[Shown]  # of validation and test, the largest loss first
    seen_by: str  # the method of their heat maps
    calibration: Calibration
    refusals: Refusals | None  # None: the model has no threshold
    near_duplicates: NearDuplicates
    trained_on: list[str]  # warnings of test images that were trained on


def find(run: FinishedRun, source: str | None = None) -> Findings:
    """Predicts the validation and test splits of a run with its bundle.

    `source` overrides the place of the images in the run's config.

    Raises:
        CheckpointError: the run has no model yet.
        DataError: images of the run are missing.
    """
    bundle = Bundle.load(run.path)
    folder = open_source(run, source, bundle.size)
    pictures, first = run.split("val", "test"), len(run.split("val"))
    used = only(folder, run, pictures, source)
    images = stored_pictures(used, bundle.size)
    labels = np.array([*map(bundle.classes.index, pictures.names)], np.int32)
    logits = Predictor(bundle).logits(images)
    show = _Show(bundle, used, pictures, images, logits, labels)
    tested = slice(first, None)
    summary = metrics.summarise(logits[tested], labels[tested], bundle.classes, bundle.temperature)
    return Findings(
        summary=summary | refusal.acceptance(bundle, logits[tested]),
        seen_by=explain.method(bundle),
        misses=show(np.argsort(show.of_label, kind="stable")[:TOP_LOSSES]),
        calibration=_calibration(logits[tested], labels[tested], bundle.temperature),
        refusals=_refusals(bundle, show, first),
        near_duplicates=find_near_duplicates(run.pictures, folder),
        trained_on=warnings_of(run, trained_on_test(run)),
    )


class _Show:
    """Makes `Shown` of rows of arrays. `pictures` and the records of `folder` have their order."""

    def __init__(
        self,
        bundle: Bundle,
        folder: Folder,
        pictures: Pictures,
        images: LazyPictures,
        logits: Float[np.ndarray, "N K"],
        labels: Int[np.ndarray, " N"],
    ):
        self.bundle, self.folder, self.pictures, self.images = bundle, folder, pictures, images
        self.labels = labels
        self.probs = np.exp(calibration.log_softmax(logits, bundle.temperature))
        self.of_label = self.probs[np.arange(len(labels)), labels]
        self.scores = bundle.score(logits)

    def __call__(self, rows: Int[np.ndarray, " M"]) -> list[Shown]:
        predicted = self.probs[rows].argmax(axis=1).astype(np.int32)
        try:
            maps = explain.heat_maps(self.bundle, self.images[rows], predicted)
        except CheckpointError:
            maps = [None] * len(rows)
        return [self._one(*row) for row in zip(rows, predicted, maps, strict=True)]

    def _one(
        self, i: np.integer, label: np.integer, heat: Float[np.ndarray, "S S"] | None
    ) -> Shown:
        thumbnail = letterbox(self.folder.load(self.folder.records[i]), THUMBNAIL)
        return Shown(
            self.pictures[i],
            self.bundle.classes[label],
            float(self.probs[i, label]),
            float(self.of_label[i]),
            float(self.scores[i]),
            self.bundle.refuses(self.scores[i]),
            thumbnail,
            None if heat is None else explain.overlay(thumbnail, heat),
        )


def _refusals(bundle: Bundle, show: _Show, first: int) -> Refusals | None:
    """Refused images among the rows from `first` on."""
    if bundle.accept_from is None:
        return None
    order = first + np.argsort(show.scores[first:], kind="stable")
    rows = order[: sum(map(bundle.refuses, show.scores[order]))]
    counts = np.bincount(show.labels[rows], minlength=len(bundle.classes))
    return Refusals(
        promise=refusal.promise(bundle),
        right=int((show.probs[rows].argmax(axis=1) == show.labels[rows]).sum()),
        by_class=dict(zip(bundle.classes, counts.tolist(), strict=True)),
        lowest=show(rows[:TOP_REFUSED]),
    )


def _calibration(
    logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], temperature: float
) -> Calibration:
    before, after = (np.exp(calibration.log_softmax(logits, t)) for t in (1.0, temperature))
    return Calibration(
        temperature,
        calibration.reliability(before, labels),
        calibration.reliability(after, labels),
        calibration.expected_calibration_error(before, labels),
        calibration.expected_calibration_error(after, labels),
    )
