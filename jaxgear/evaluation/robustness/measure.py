"""How a model holds when pictures get worse: common corruptions, and folders of other pictures.

What was measured is kept in the run folder, as `robustness.json`.
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
from jaxgear.files import write_json
from jaxgear.prediction import Predictor, open_folder
from jaxgear.training.runs import read_json

FILE = "robustness.json"
CLEAN = "clean"


# Figures of a set of images by name: the `OF_SETS`, the share that is taken for gear (`accepted`),
# and `metrics.by_split` of a named folder (`by_side`), of which some may be the model's own data.
Score = dict[str, Any]
OF_SETS = tuple(metric for metric in metrics.METRICS if metric.of_sets)


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Of one model, which `epoch` and `fingerprint` (of its data) tell from others of its run."""

    epoch: int | None
    fingerprint: str
    sets: dict[str, Score]  # `CLEAN`, the run's own test split, and named folders
    corruptions: dict[str, list[float]]  # accuracy at each of `severities`; may be empty
    severities: list[int]
    n: int  # pictures of the test split that were corrupted

    def mean(self, name: str) -> float:
        """Accuracy under a corruption, over its severities."""
        return float(np.mean(self.corruptions[name]))

    @property
    def mean_of_all(self) -> float:
        """Accuracy over all corruptions, each counting alike."""
        return float(np.mean([self.mean(name) for name in self.corruptions]))

    def write(self, run: Path) -> None:
        """Keeps it in a run folder."""
        write_json(run / FILE, dataclasses.asdict(self))

    @classmethod
    def read(cls, run: Path, bundle: Bundle) -> "Robustness | None":
        """What was kept, if it is of this model.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not (run / FILE).exists():
            return None
        card = read_json(run / FILE)
        try:
            found = cls(**card)
            for score in found.sets.values():
                _check(score)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{run / FILE}: not readable, delete it ({error})") from error
        same = (found.epoch, found.fingerprint) == (bundle.about.get("epoch"), bundle.fingerprint)
        return found if same else None


@dataclasses.dataclass(frozen=True)
class Beside:
    """What was kept of another run."""

    name: str
    found: Robustness
    same_test: bool  # its test split has the same pictures

    @classmethod
    def read(cls, path: Path, run: FinishedRun) -> "Beside":
        """Of the run in `path`, to stand beside `run`.

        Raises:
            UsageError: nothing was measured of its model.
        """
        other = FinishedRun.read(path)
        if (found := Robustness.read(path, Bundle.load(path))) is None:
            raise UsageError(
                f"--beside {path}: nothing is measured of it yet; first report {path} --robustness"
            )
        ours, theirs = ({one.sha256 for one in each.split("test")} for each in (run, other))
        return cls(path.resolve().name, found, ours == theirs)


def measured(
    run: FinishedRun,
    source: str | None = None,
    folders: Mapping[str, Path] | None = None,
    corrupted: bool = False,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Robustness | None:
    """What is known of the run's model; first measures what is asked for, and keeps it with what
    was measured before.

    Args:
        folders: pictures by class, by the name that they get in tables.
        corrupted: measure corruptions, of all test pictures or of `limit`.

    Raises:
        DataError: pictures are not there.
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
    found = Robustness(
        bundle.about.get("epoch"), bundle.fingerprint, sets, corruptions, list(SEVERITIES), n
    )
    try:
        found.write(run.path)
    except OSError as error:
        say(f"warning: {run.path / FILE}: not kept, cannot be written ({error.strerror})")
    return found


class Measure:
    """A run's model, and its own test split as the network sees it."""

    def __init__(self, run: FinishedRun, bundle: Bundle, source: str | None = None):
        self.bundle = bundle
        self._predictor = Predictor(bundle)
        pictures = run.split("test")
        folder = open_source(run, source, bundle.size)
        self._images = pixels(only(folder, run, pictures, source), bundle.size)
        self._labels = np.array([bundle.classes.index(one.name) for one in pictures], np.int32)
        # Those to corrupt, of more than there is time for: any, but always the same.
        self._order = np.argsort([one.sha256 for one in pictures], kind="stable")

    def sets(self, folders: Mapping[str, Path]) -> dict[str, Score]:
        """The test split as it is, and folders of pictures by class.

        Raises:
            DataError: a folder with a class that the model does not know, or with bad pictures.
        """
        found = {CLEAN: self._score(self._images, self._labels)}
        for name, folder in folders.items():
            split = open_folder(folder, self.bundle, "stop")
            known = [self.bundle.split_of(record.sha256) for record in split.records]
            found[name] = self._score(split.images, split.labels, known)
        return found

    def corruptions(
        self,
        severities: Sequence[int] = SEVERITIES,
        limit: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> tuple[dict[str, list[float]], int]:
        """Accuracy at each severity of each corruption of corruptions.py, and of how many
        images: the test split, or `limit` of it.
        """
        rows = self._order[:limit]
        images, labels = self._images[rows], self._labels[rows]
        found = {}
        for name in CORRUPTIONS:
            found[name] = [
                float((self._predicted(corrupt(images, name, s)) == labels).mean())
                for s in severities
            ]
            say(f"{name}: accuracy {np.mean(found[name]):.3f} of {len(rows)} pictures")
        return found, len(rows)

    def _predicted(self, images: UInt8[np.ndarray, "N S S 3"]) -> Int[np.ndarray, " N"]:
        return self._predictor.logits(images).argmax(axis=1)

    def _score(
        self,
        images: UInt8[np.ndarray, "N S S 3"],
        labels: Int[np.ndarray, " N"],
        splits: Sequence[str | None] = (),
    ) -> Score:
        logits: Float[np.ndarray, "N K"] = self._predictor.logits(images)
        found: dict[str, Any] = metrics.summarise(
            logits, labels, self.bundle.classes, self.bundle.temperature
        )
        accepted = refusal.acceptance(self.bundle, logits)["accepted"]
        apart = metrics.by_split(logits, labels, splits) if splits else {}
        figures = {metric.name: found[metric.name] for metric in OF_SETS}
        return figures | {"accepted": accepted, "by_side": apart}


def _check(score: Score) -> None:
    """ValueError for what `Measure` would not have written. Older files lack `by_side`."""
    score.setdefault("by_side", {})
    wanted = {"accepted", "by_side", *(metric.name for metric in OF_SETS)}
    if score.keys() != wanted:
        raise ValueError(f"figures {', '.join(sorted(score))}")
