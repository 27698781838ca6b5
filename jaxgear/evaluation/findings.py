"""What a report says of a finished run that its files do not: computed from model and pictures."""

import collections
import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jaxgear.bundle import Bundle
from jaxgear.data.dataset import default_source, read_source
from jaxgear.data.folder import Folder, Record, pixels
from jaxgear.data.images import letterbox
from jaxgear.errors import CheckpointError, DataError
from jaxgear.evaluation import calibration, explain, metrics
from jaxgear.evaluation.finished import SIDES, FinishedRun, Picture
from jaxgear.prediction import Predictor

TOP_LOSSES = 24
GROUPS, MEMBERS = 8, 6  # near-duplicate groups that are shown, and pictures of each
THUMBNAIL = 192  # pixels


@dataclasses.dataclass(frozen=True)
class Miss:
    """A picture whose label the network finds unlikely."""

    picture: Picture
    predicted: str  # class
    prob: float  # of that class, calibrated
    label_prob: float  # of the labelled class
    image: UInt8[np.ndarray, "T T 3"]
    overlay: UInt8[np.ndarray, "T T 3"] | None  # where it saw `predicted`; None: no convolution

    @property
    def loss(self) -> float:
        """Cross-entropy in nats."""
        return -float(np.log(max(self.label_prob, 1e-12)))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of the test side: bins and expected calibration error without and with the temperature."""

    temperature: float
    before: list[calibration.Bin]
    after: list[calibration.Bin]
    error_before: float
    error_after: float


@dataclasses.dataclass(frozen=True)
class Twins:
    """Near-duplicates, and on which sides the split put them."""

    groups: int  # with more than one picture
    pictures: dict[str, int]  # in such groups, by side
    straddling: int  # groups with pictures on two of train, val and test: 0, or the split is wrong
    examples: list[list[tuple[Picture, UInt8[np.ndarray, "T T 3"]]]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """All of it."""

    summary: dict[str, Any]  # as test.json
    misses: list[Miss]  # of val and test, the largest loss first
    calibration: Calibration
    twins: Twins


def find(run: FinishedRun, source: str | None = None) -> Findings:
    """Predicts the validation and test sides of `splits.json` with the run's bundle.

    `source` overrides where the run's config says that the pictures are. They are recognised by
    their hashes: pictures that were added or moved since do not matter, one that is gone does.

    Raises:
        CheckpointError: the run has no model yet.
        DataError: the pictures are not there, or not those of the run.
    """
    bundle = Bundle.load(run.path)
    folder = _open(run, source, bundle.size)
    records = {record.sha256: record for record in folder.records}
    val, test = run.side("val"), run.side("test")
    pictures = val + test
    if gone := [picture.path for picture in pictures if picture.sha256 not in records]:
        raise DataError(
            f"{folder.root}: {len(gone)} of the pictures that {run.path} was tested on are not "
            f"there, as {gone[0]}; name their place with --data FOLDER"
        )
    used = dataclasses.replace(folder, records=tuple(records[p.sha256] for p in pictures))
    images = pixels(used, bundle.size)
    labels = np.array([bundle.classes.index(picture.name) for picture in pictures], np.int32)
    logits = Predictor(bundle).logits(images)
    tested = slice(len(val), None)
    return Findings(
        summary=metrics.summarise(
            logits[tested], labels[tested], bundle.classes, bundle.temperature
        ),
        misses=_misses(bundle, used, pictures, images, logits, labels),
        calibration=_calibration(logits[tested], labels[tested], bundle.temperature),
        twins=_twins(run, folder, records),
    )


def _open(run: FinishedRun, source: str | None, size: int) -> Folder:
    given = source or run.config.get("data") or default_source()
    try:
        return read_source(given, size)
    except DataError as error:
        if source:
            raise
        raise DataError(
            f"{run.path}: its pictures are not at {given!r} as its config says (a relative path "
            f"counts from where the run was started); name their place with --data FOLDER"
        ) from error


def _misses(
    bundle: Bundle,
    folder: Folder,
    pictures: tuple[Picture, ...],
    images: UInt8[np.ndarray, "N S S 3"],
    logits: Float[np.ndarray, "N K"],
    labels: Int[np.ndarray, " N"],
) -> list[Miss]:
    """`pictures`, and the records of `folder`, in the order of the arrays."""
    probs = np.exp(calibration.log_softmax(logits, bundle.temperature))
    of_label = probs[np.arange(len(labels)), labels]
    worst = np.argsort(of_label, kind="stable")[:TOP_LOSSES]
    predicted = probs[worst].argmax(axis=1).astype(np.int32)
    try:
        maps = explain.grad_cam(bundle, images[worst], predicted)
    except CheckpointError:
        maps = [None] * len(worst)
    found = []
    for i, label, heat in zip(worst, predicted, maps, strict=True):
        thumbnail = letterbox(folder.load(folder.records[i]), THUMBNAIL)
        found.append(
            Miss(
                pictures[i],
                bundle.classes[label],
                float(probs[i, label]),
                float(of_label[i]),
                thumbnail,
                None if heat is None else explain.overlay(thumbnail, _resize(heat, THUMBNAIL)),
            )
        )
    return found


def _resize(heat: Float[np.ndarray, "S S"], size: int) -> Float[np.ndarray, "T T"]:
    return np.asarray(Image.fromarray(heat).resize((size, size), Image.Resampling.BILINEAR))


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


def _twins(run: FinishedRun, folder: Folder, records: dict[str, Record]) -> Twins:
    members: dict[str, list[Picture]] = collections.defaultdict(list)
    for picture in run.pictures:
        members[picture.group].append(picture)
    groups = [found for found in members.values() if len(found) > 1]
    groups.sort(key=_telling)
    sides = collections.Counter(picture.side for found in groups for picture in found)
    kept = [{picture.side for picture in found} - {"left_out"} for found in groups]
    examples = [
        [
            (picture, letterbox(folder.load(records[picture.sha256]), THUMBNAIL))
            for picture in found[:MEMBERS]
            if picture.sha256 in records
        ]
        for found in groups[:GROUPS]
    ]
    return Twins(
        groups=len(groups),
        pictures={side: sides[side] for side in SIDES},
        straddling=sum(len(found) > 1 for found in kept),
        examples=[shown for shown in examples if shown],
    )


def _telling(group: list[Picture]) -> tuple:
    """Sorts groups that are tested on ahead, and among them those that were cut, and large ones."""
    sides = {picture.side for picture in group}
    return not sides & {"val", "test"}, -len(sides), -len(group), group[0].path
