"""Measures a model on corrupted images, and on other folders of images.

The figures are kept in the run folder, in `robustness.json`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.folder import pixels
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.evaluation import metrics
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.no_gear import refusal
from jaxgear.evaluation.own_pictures import only, open_source
from jaxgear.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from jaxgear.files import read_json, write_json
from jaxgear.prediction import Predictor, open_labelled

FILE = "robustness.json"
CLEAN = "clean"


# Figures of a set of images by name: the metrics `OF_SETS`, the share of images accepted as gear
# (`accepted`), and `metrics.by_split` (`by_side`), as a folder may hold images of the model's data.
Score = dict[str, Any]
OF_SETS = tuple(metric for metric in metrics.METRICS if metric.of_sets)


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Figures of one model. `epoch` and `fingerprint` (of its data) identify it within its run."""

    epoch: int | None
    fingerprint: str
    sets: dict[str, Score]  # `CLEAN`, the run's own test split, and named folders
    corruptions: dict[str, list[float]]  # accuracy at each of `severities`; may be empty
    severities: list[int]
    n: int  # pictures of the test split that were corrupted

    def mean(self, name: str) -> float:
        """Mean accuracy under a corruption, over severities."""
        return float(np.mean(self.corruptions[name]))

    @property
    def mean_of_all(self) -> float:
        """Mean accuracy over corruptions."""
        return float(np.mean([self.mean(name) for name in self.corruptions]))

    def write(self, run: Path) -> None:
        """Writes it to a run folder."""
        write_json(run / FILE, dataclasses.asdict(self))

    @classmethod
    def read(cls, run: Path, bundle: Bundle) -> "Robustness | None":
        """Reads it from a run folder; None if there is none of this model.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not (run / FILE).exists():
            return None
        card = read_json(run / FILE)
        try:
            kept = cls(**card)
            for score in kept.sets.values():
                _check(score)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{run / FILE}: not readable, delete it ({error})") from error
        same = (kept.epoch, kept.fingerprint) == (bundle.about.get("epoch"), bundle.fingerprint)
        return kept if same else None


@dataclasses.dataclass(frozen=True)
class Beside:
    """The figures of another run, shown beside those of this one."""

    name: str
    figures: Robustness
    same_test: bool  # its test split has the same pictures

    @classmethod
    def read(cls, path: Path, run: FinishedRun) -> "Beside":
        """Figures of the run in `path`, to show beside `run`.

        Raises:
            UsageError: its model was not measured yet.
        """
        other = FinishedRun.read(path)
        if (figures := Robustness.read(path, Bundle.load(path))) is None:
            raise UsageError(
                f"--beside {path}: nothing is measured of it yet; first report {path} --robustness"
            )
        ours, theirs = (set(r.split("test").sha256) for r in (run, other))
        return cls(path.resolve().name, figures, ours == theirs)


def measured(
    run: FinishedRun,
    source: str | None = None,
    folders: Mapping[str, Path] | None = None,
    corrupted: bool = False,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Robustness | None:
    """All figures of the run's model, kept ones and new ones; None if there are none.

    New figures are measured on request, and kept with the others.

    Args:
        folders: folders of images by class, by their names in tables.
        corrupted: measure corruptions of the test images, or of `limit` of them.

    Raises:
        DataError: images are missing.
    """
    bundle = Bundle.load(run.path)
    kept = Robustness.read(run.path, bundle)
    if not folders and not corrupted:
        return kept
    measure = Measure(run, bundle, source)
    sets = (kept.sets if kept else {}) | measure.sets(folders or {})
    for name, score in sets.items():
        if sentence := metrics.known_pictures(score["by_side"]):
            say(f"note: {name}: {sentence}")
    corruptions, n = (kept.corruptions, kept.n) if kept else ({}, 0)
    if corrupted:
        corruptions, n = measure.corruptions(limit=limit, say=say)
    result = Robustness(
        bundle.about.get("epoch"), bundle.fingerprint, sets, corruptions, list(SEVERITIES), n
    )
    try:
        result.write(run.path)
    except OSError as error:
        say(f"warning: {run.path / FILE}: not kept, cannot be written ({error.strerror})")
    return result


class Measure:
    """Measures a run's model, on its test split as the network sees it."""

    def __init__(self, run: FinishedRun, bundle: Bundle, source: str | None = None):
        self.bundle = bundle
        self._predictor = Predictor(bundle)
        pictures = run.split("test")
        folder = open_source(run, source, bundle.size)
        self._images = pixels(only(folder, run, pictures, source), bundle.size)
        self._labels = np.array([bundle.classes.index(p.name) for p in pictures], np.int32)
        # A fixed random order: the first `limit` images are corrupted.
        self._order = np.argsort([picture.sha256 for picture in pictures], kind="stable")

    def sets(self, folders: Mapping[str, Path]) -> dict[str, Score]:
        """Scores of the test split as it is, and of folders of images by class.

        Raises:
            DataError: a folder has unusable images, or a class that the model does not know.
        """
        scores = {CLEAN: self._score(self._images, self._labels)}
        for name, folder in folders.items():
            split = open_labelled(str(folder), self.bundle, "stop")
            known = [*map(self.bundle.split_of, split.sha256)]
            scores[name] = self._score(split.images, split.labels, known)
        return scores

    def corruptions(
        self,
        severities: Sequence[int] = SEVERITIES,
        limit: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> tuple[dict[str, list[float]], int]:
        """Accuracy of each corruption at each severity, and the number of images: all of the test
        split, or `limit` of it.
        """
        rows = self._order[:limit]
        images, labels = self._images[rows], self._labels[rows]
        accuracies = {}
        for name in CORRUPTIONS:
            accuracies[name] = [
                float((self._predicted(corrupt(images, name, s)) == labels).mean())
                for s in severities
            ]
            say(f"{name}: accuracy {np.mean(accuracies[name]):.3f} of {len(rows)} pictures")
        return accuracies, len(rows)

    def _predicted(self, images: UInt8[np.ndarray, "N S S 3"]) -> Int[np.ndarray, " N"]:
        return self._predictor.logits(images).argmax(axis=1)

    def _score(
        self,
        images: UInt8[np.ndarray, "N S S 3"],
        labels: Int[np.ndarray, " N"],
        splits: Sequence[str | None] = (),
    ) -> Score:
        logits: Float[np.ndarray, "N K"] = self._predictor.logits(images)
        summary: dict[str, Any] = metrics.summarise(
            logits, labels, self.bundle.classes, self.bundle.temperature
        )
        accepted = refusal.acceptance(self.bundle, logits)["accepted"]
        by_split = metrics.by_split(logits, labels, splits) if splits else {}
        figures = {metric.name: summary[metric.name] for metric in OF_SETS}
        return figures | {"accepted": accepted, "by_side": by_split}


def _check(score: Score) -> None:
    """Raises ValueError for a score that `Measure` did not write. Older files lack `by_side`."""
    score.setdefault("by_side", {})
    wanted = {"accepted", "by_side", *(metric.name for metric in OF_SETS)}
    if score.keys() != wanted:
        raise ValueError(f"figures {', '.join(sorted(score))}")
