"""The trials of a study, in Optuna's storage: planned, taken one by one, and finished.

A trial that is under way holds the lock of its folder. The kernel releases the lock when the
processes that train it have ended, so whoever can lock a running trial continues it.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from jaxgear.errors import UsageError, first_line
from jaxgear.files import Lock
from jaxgear.study.variants import Span, Variant
from jaxgear.training import history

STORE, NAME = "study.db", "study"  # the SQLite file, and the study in it
# State of a finished trial -> Optuna's.
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "out of memory": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
WAIT = 0.05  # seconds between tries to get a lock that others hold for a moment


@dataclasses.dataclass(frozen=True)
class Trial:
    """One variant with one seed."""

    number: int
    variant: Variant
    seed: int
    state: str  # a key of STATES, "waiting" or "running"
    val_accuracy: float | None  # of the epoch of lowest validation loss
    val_loss: float | None


class Trials:
    """The trials in the folder of a study."""

    def __init__(self, folder: Path, about: dict[str, Any], storage: str = "", pruner: Any = None):
        """Opens the study in `folder`, or makes it.

        Args:
            about: what all trials share; a study keeps it.
            storage: address of a database, or file of an Optuna journal (.log), for many hosts;
                "": a SQLite file in the folder.

        Raises:
            UsageError: the folder has another study or other files, or the storage does not open.
        """
        self.folder = folder
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        other = folder.is_dir() and any(folder.iterdir()) and not (folder / "trials").is_dir()
        if other or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"--out {folder}: holds other files; name a new folder")
        try:
            (folder / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {folder}: cannot be written ({error.strerror})") from error
        with self.alone():
            self._storage = self._open(storage)
            self._study = optuna.load_study(
                study_name=NAME, storage=self._storage, pruner=pruner or optuna.pruners.NopPruner()
            )
            self._id = self._storage.get_study_id_from_name(NAME)
            kept = self._study.user_attrs
            for key, value in about.items():
                if key not in kept:
                    self._study.set_user_attr(key, value)
                elif kept[key] != value:
                    raise UsageError(
                        f"--out {folder}: this study has another {key}; name a new folder"
                    )

    def _open(self, storage: str) -> optuna.storages.BaseStorage:
        options = {"study_name": NAME, "direction": "maximize", "load_if_exists": True}
        file = self.folder / STORE
        try:
            if not storage and not file.exists():
                # Made under another name: a kill must not leave a database without its tables.
                new = self.folder / f".new-{STORE}"
                new.unlink(missing_ok=True)
                optuna.create_study(storage=f"sqlite:///{new}", **options)
                new.rename(file)
            if storage.endswith(".log"):
                opened = JournalStorage(JournalFileBackend(storage))
            else:
                opened = optuna.storages.get_storage(storage or f"sqlite:///{file}")
            optuna.create_study(storage=opened, **options)
        except Exception as error:  # of whatever database driver
            place = f"--storage {storage}" if storage else str(file)
            raise UsageError(f"{place}: cannot be opened ({first_line(error)})") from error
        return opened

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes of this study out for a moment."""
        while True:
            with contextlib.suppress(UsageError):
                lock = Lock(self.folder / ".lock")
                break
            time.sleep(WAIT)
        with lock:
            yield

    def all(self) -> list[Trial]:
        """Every trial, by number; without one that a kill left before it had a variant."""
        trials = self._study.get_trials(deepcopy=False)
        return [_trial(frozen) for frozen in trials if "variant" in frozen.user_attrs]

    def plan(self, variants: Sequence[Variant], seeds: Sequence[int]) -> None:
        """Adds the trials that are not there yet; all variants of a seed come before the next."""
        with self.alone():
            there = [(trial.variant, trial.seed) for trial in self.all()]
            for seed in seeds:
                for variant in variants:
                    if (variant, seed) not in there:
                        attributes = {"variant": variant, "seed": seed}
                        self._study.enqueue_trial({}, user_attrs=attributes)

    def propose(self, space: dict[str, list[Any] | Span], sampler: str, budget: int) -> bool:
        """Adds a trial of a variant that Optuna's sampler proposes; False if `budget` are there."""
        distributions = {name: _distribution(values) for name, values in space.items()}
        with self.alone():
            if sum(trial.seed == 0 for trial in self.all()) >= budget:
                return False
            # A seed of its own for each trial: a restarted study must not propose the same again.
            number = len(self._study.get_trials(deepcopy=False))
            samplers = optuna.samplers
            self._study.sampler = {
                "tpe": samplers.TPESampler, "random": samplers.RandomSampler,
            }[sampler](seed=number)  # fmt: skip
            trial = self._study.ask(distributions)
            trial.set_user_attr("variant", trial.params)
            trial.set_user_attr("seed", 0)
        return True

    @contextlib.contextmanager
    def take(self) -> Iterator[tuple[Trial, Path, int | None] | None]:
        """A trial to train, its folder, and the descriptor of its lock, held until leaving.

        That is a running trial that nobody trains, or the first one that waits; else None.
        """
        taken = self._take()
        if taken is None:
            yield None
            return
        trial, folder, lock = taken
        with lock:
            yield trial, folder, lock.descriptor

    def _take(self) -> tuple[Trial, Path, Lock] | None:
        unfinished = (TrialState.RUNNING, TrialState.WAITING)
        for frozen in sorted(
            self._study.get_trials(deepcopy=False, states=unfinished),
            key=lambda frozen: (frozen.state != TrialState.RUNNING, frozen.number),
        ):
            if "variant" not in frozen.user_attrs:
                continue  # being proposed, or left so by a kill
            folder = self.folder_of(frozen.number)
            folder.mkdir(exist_ok=True)
            try:
                lock = Lock(folder / "lock")
            except UsageError:
                continue
            trial_id = self._id_of(frozen.number)
            state = self._storage.get_trial(trial_id).state
            if state == TrialState.WAITING:
                self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            if state in unfinished:
                return _trial(frozen), folder, lock
            lock.release()  # finished since it was listed
        return None

    def folder_of(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / f"{number:05d}"

    def report(self, number: int, row: history.Row) -> bool:
        """Tells Optuna about an epoch; True if its pruner ends the trial."""
        trial = optuna.Trial(self._study, self._id_of(number))
        trial.report(row.val_accuracy, row.epoch)
        return trial.should_prune()

    def finish(self, number: int, state: str, best: history.Row | None) -> None:
        """Records how a trial ended; `best` is its epoch of lowest validation loss."""
        kept = {"state": state}
        if best is not None:
            kept |= {"val_loss": best.val_loss, "val_accuracy": best.val_accuracy}
        for key, value in kept.items():
            self._storage.set_trial_user_attr(self._id_of(number), key, value)
        value = best.val_accuracy if state == "complete" else None
        self._study.tell(number, value, state=STATES[state])

    def _id_of(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    kept = frozen.user_attrs
    running = "running" if frozen.state == TrialState.RUNNING else "waiting"
    return Trial(
        number=frozen.number,
        variant=kept.get("variant", {}),
        seed=kept.get("seed", 0),
        state=kept["state"] if frozen.state.is_finished() else running,
        val_accuracy=kept.get("val_accuracy"),
        val_loss=kept.get("val_loss"),
    )


def _distribution(values: list[Any] | Span) -> optuna.distributions.BaseDistribution:
    if not isinstance(values, Span):
        return optuna.distributions.CategoricalDistribution(values)
    kind = optuna.distributions.FloatDistribution
    if isinstance(values.low, int) and isinstance(values.high, int):
        kind = optuna.distributions.IntDistribution
    return kind(values.low, values.high, log=values.log)
