"""An open run folder: made, resumed, and filled epoch by epoch.

    config.json, environment.json, experiment.py    flags, versions and devices, source; FLOPs
    splits.json                                     every image, its group and its split; of a
                                                    large set with columns in splits-1/
    history.csv                                     one row per epoch
    checkpoints/, model/                            newest and best states; the bundle of the best

`jaxgear.experiment.run` and `jaxgear.evaluation` add figures, `test.json` and the report.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import PyTree

from jaxgear.data.dataset import Dataset
from jaxgear.data.recorded import Recorded, changed_pictures, write_splits
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import Lock, read_json, write_json, write_text
from jaxgear.machine import devices, hosts
from jaxgear.text import few
from jaxgear.training import history
from jaxgear.training.runs.checkpoints import Checkpoints
from jaxgear.training.runs.folder import new_folder, resumption
from jaxgear.training.state import TrainState


class Run:
    """An open run folder, locked by this process. A context manager: leaving it releases the lock.

    Several hosts share the folder: the first writes and the others read. All call the same methods
    in the same order.

    `rows` is the history so far. `tested` is true if the run has a test result, and `trained` if an
    epoch has been added since it was opened.
    """

    def __init__(self, path: Path, rows: list[history.Row], from_epoch: int = 0):
        self.path = path
        self.rows = rows
        self.tested = (path / "test.json").exists()
        self.trained = False
        self._first = devices.first_host()
        hosts.name_run(path)
        self._lock = Lock(path / "lock") if self._first else None
        self.checkpoints = Checkpoints(path / "checkpoints")
        self._paused = path / "interrupted"
        self._from_epoch = from_epoch
        # What the folder holds before anything was trained; empty: another process made it.
        self._blank: frozenset[str] = frozenset()

    @classmethod
    def create(
        cls,
        out: str | Path,
        name: str,
        config: dict[str, Any],
        dataset: Dataset,
        source: str,
        made_of: Mapping[str, str | None] = MappingProxyType({}),
    ) -> "Run":
        """Starts a run in a new folder OUT/<name>-<time>[-n].

        Args:
            source: the text of the experiment file.
            made_of: as of `check_made_of`.

        Raises:
            UsageError: OUT cannot be written.
        """
        made = ""
        if devices.first_host():
            made = str(new_folder(Path(out), name, config, dataset, source, made_of))
        run = cls(Path(devices.from_first(made)), [])
        if run._first:
            own = (path.name for path in run.path.iterdir())
            run._blank = frozenset((*own, "checkpoints", "lock"))
        return run

    @classmethod
    def reopen(
        cls,
        path: str | Path,
        dataset: Dataset,
        *,
        config: dict[str, Any],
        source: str,
        from_epoch: int = 0,
        allow_data_change: bool = False,
    ) -> "Run":
        """Opens an earlier run to continue it with `config`; adds an entry to `resumed.json`.

        Args:
            from_epoch: continue from this epoch's checkpoint instead of the newest.

        Raises:
            CheckpointError: it is no run folder, it has no checkpoint of `from_epoch`, or images
                have changed and `allow_data_change` is not set.
            UsageError: another process has it open.
        """
        path = Path(path)
        changes = changed_pictures(Recorded.read(path), dataset)
        if changes and not allow_data_change:
            raise CheckpointError(
                f"{path}: {len(changes)} pictures have changed since this run started: "
                f"{few(changes, 5)}; start a new run, or continue with --allow-data-change"
            )
        rows = history.read(path)
        run = cls(path, rows, from_epoch)
        try:
            if len(rows) < max(run.checkpoints.epochs, default=0):
                raise CheckpointError(
                    f"{path / 'history.csv'}: has {len(rows)} epochs, but checkpoints go up to "
                    f"epoch {max(run.checkpoints.epochs)}; restore the file, or start a new run "
                    f"with --init-from {path}"
                )
            if from_epoch and from_epoch not in run.checkpoints.epochs:
                raise CheckpointError(
                    f"--from-epoch {from_epoch}: {run.checkpoints.folder} has epochs "
                    f"{', '.join(map(str, run.checkpoints.epochs)) or 'none'}"
                )
            if run._first:
                entry = resumption(path, config, source, changes, run.tested)
                file = path / "resumed.json"
                write_json(file, [*(read_json(file) if file.exists() else []), entry])
                if changes:
                    # A mid-epoch checkpoint refers to the old images.
                    shutil.rmtree(run._paused, ignore_errors=True)
                    write_splits(path, dataset)
                write_json(path / "config.json", config)
            devices.highest(0)  # a barrier: no host continues before this is written
        except BaseException:
            run._close()
            raise
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *trace: object
    ) -> None:
        blank = self._is_blank()
        self._close()
        if blank and isinstance(error, UsageError):  # of a network that fails when it is compiled
            shutil.rmtree(self.path, ignore_errors=True)
        if self._first and isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"interrupted; continue with --resume {self.path}", file=sys.stderr)
        if lost := hosts.lost_host(error):
            raise lost from error
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{error.filename or self.path}: cannot be written ({error.strerror}); "
                f"earlier saves are whole, continue with --resume {self.path}"
            ) from error

    def _is_blank(self) -> bool:
        """Whether this process made the folder, and nothing was added to it."""
        if self.checkpoints.epochs or not self.path.is_dir():
            return False
        return {path.name for path in self.path.iterdir()} <= self._blank

    def _close(self) -> None:
        self.checkpoints.close()
        if self._lock is not None:
            self._lock.release()

    def latest(self, state: TrainState, layout: devices.Layout = devices.replicated) -> TrainState:
        """The newest saved state, or `state` itself in a new run; drops later rows and checkpoints.

        The result lies on all devices in `layout`, even if other devices saved it in another one.
        """
        if (mesh := devices.all_devices()).size > 1:
            state = devices.place(state, mesh, layout)
        epochs = self.checkpoints.epochs
        epoch = self._from_epoch or max(epochs, default=0)
        self.rows = [row for row in self.rows if row.epoch <= epoch]
        if self._paused.is_dir() and not self._from_epoch:
            with Checkpoints(self._paused, keep_best=0, keep_latest=1) as paused:
                if paused.epochs == [epoch]:
                    return paused.restore(state, epoch)
        if epoch:
            state = self.checkpoints.restore(state, epoch)
        for later in epochs:
            if later > epoch:  # training will write it again
                self.checkpoints.delete(later)
        return state

    def best(self, state: TrainState) -> tuple[dict[str, PyTree], history.Row]:
        """The variables of lowest validation loss, whole on one device, and their row."""
        row = history.best(self.rows)
        return devices.local(self.checkpoints.restore(state, row.epoch).variables), row

    def record(self, state: TrainState, row: history.Row) -> None:
        """Saves an epoch: the history first, so that every checkpoint has its row."""
        self.rows.append(row)
        self.trained = True
        if self._first:
            write_text(self.path / "history.csv", history.to_csv(self.rows))
        self.checkpoints.save(state, row.epoch, row.val_loss, row.size)
        if self._first:
            shutil.rmtree(self._paused, ignore_errors=True)

    def note_flops(self, of_step: int | list[int]) -> None:
        """Adds the FLOPs of an optimizer step (`program.flops`) to `environment.json`.

        With progressive resizing, those of a step of each epoch.
        """
        if self._first:
            file = self.path / "environment.json"
            write_json(file, read_json(file) | {"flops_per_step": of_step})

    def pause(self, state: TrainState) -> None:
        """Saves a state from the middle of the epoch that follows the last row."""
        if self._first:
            shutil.rmtree(self._paused, ignore_errors=True)
        epoch = self.rows[-1].epoch if self.rows else 0
        with Checkpoints(self._paused, keep_best=0, keep_latest=1) as paused:
            paused.save(state, epoch, 0.0)
