"""A run folder: what it holds, how it is made, and how it is opened again.

    config.json, environment.json, experiment.py    what was run, on what
    splits.json                                     every picture, its group and its split
    history.csv                                     one row an epoch
    checkpoints/, model/                            newest and best states; the best, to hand on

Figures, `test.json` and the report come from `jaxgear.experiment.run` and `jaxgear.evaluation`.
"""

import datetime
import errno
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxgear.data.dataset import Dataset, changed_pictures, few
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import write_json, write_text
from jaxgear.lock import Lock
from jaxgear.machine import devices
from jaxgear.training import history
from jaxgear.training.environment import environment
from jaxgear.training.runs.checkpoints import Checkpoints
from jaxgear.training.steps import TrainState


class Run:
    """An open run folder, held by this process alone. A context manager: leaving it lets go.

    Of several hosts the first writes, and all others read what it wrote: they share the folder,
    and call the same methods in the same order.

    `rows` is the history so far; `tested` tells whether the test split was looked at before, and
    `trained` whether there was an epoch since.
    """

    def __init__(self, path: Path, rows: list[history.Row], from_epoch: int = 0):
        self.path = path
        self.rows = rows
        self.tested = (path / "test.json").exists()
        self.trained = False
        self._first = devices.first_host()
        self._lock = Lock(path / "lock") if self._first else None
        self.checkpoints = Checkpoints(path / "checkpoints")
        self._paused = path / "interrupted"
        self._from_epoch = from_epoch

    @classmethod
    def create(
        cls,
        out: str | Path,
        name: str,
        config: dict[str, Any],
        dataset: Dataset,
        source: str,
        backgrounds: str | None = None,
    ) -> "Run":
        """A new folder OUT/<name>-<time>[-n] that describes the run that is about to start.
        `source` is the text of the experiment, `backgrounds` a hash of those that it pastes on.

        Raises:
            UsageError: OUT cannot be written.
        """
        made = ""
        if devices.first_host():
            made = str(_new_folder(Path(out), name, config, dataset, source, backgrounds))
        return cls(Path(devices.from_first(made)), [])

    @classmethod
    def reopen(
        cls,
        path: str | Path,
        dataset: Dataset,
        *,
        config: dict[str, Any],
        source: str,
        backgrounds: str | None = None,
        from_epoch: int = 0,
        allow_data_change: bool = False,
    ) -> "Run":
        """An earlier run, to continue it with `config`; `resumed.json` records that it was.

        `from_epoch`: go on from that epoch's checkpoint, not from the newest.

        Raises:
            CheckpointError: not a run folder, no checkpoint of `from_epoch`, or the pictures have
                changed and `allow_data_change` is not set.
            UsageError: another process has it open.
        """
        path = Path(path)
        changes = changed_pictures(read_json(path / "splits.json"), dataset)
        if changes and not allow_data_change:
            raise CheckpointError(
                f"{path}: {len(changes)} pictures have changed since this run started: "
                f"{few(changes, 5)}; start a new run, or go on with --allow-data-change"
            )
        pasted_on = read_json(path / "environment.json").get("backgrounds", backgrounds)
        if pasted_on != backgrounds and not allow_data_change:
            raise CheckpointError(
                f"{path}: other backgrounds than this run has been trained with; name theirs with "
                "--backgrounds, or go on with --allow-data-change"
            )
        history_file = path / "history.csv"
        try:
            rows = history.from_csv(history_file.read_text()) if history_file.exists() else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{history_file}: unreadable ({error})") from error
        run = cls(path, rows, from_epoch)
        try:
            if len(rows) < max(run.checkpoints.epochs, default=0):
                raise CheckpointError(
                    f"{history_file}: has {len(rows)} of the epochs up to "
                    f"{max(run.checkpoints.epochs)} that checkpoints are of; put it back, or start "
                    f"anew with --init-from {path}"
                )
            if from_epoch and from_epoch not in run.checkpoints.epochs:
                raise CheckpointError(
                    f"--from-epoch {from_epoch}: {run.checkpoints.folder} has epochs "
                    f"{', '.join(map(str, run.checkpoints.epochs)) or 'none'}"
                )
            if run._first:
                entry = _resumption(path, config, source, changes, run.tested)
                file = path / "resumed.json"
                write_json(file, [*(read_json(file) if file.exists() else []), entry])
                if changes:
                    # A map within an epoch is of other pictures.
                    shutil.rmtree(run._paused, ignore_errors=True)
                    write_json(path / "splits.json", dataset.describe())
                write_json(path / "config.json", config)
            devices.highest(0)  # none goes on before this is written
        except BaseException:
            run._close()
            raise
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *trace: object
    ) -> None:
        self._close()
        if self._first and isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"interrupted; go on with --resume {self.path}", file=sys.stderr)
        if lost := devices.lost_host(error, self.path):
            raise lost from error
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{error.filename or self.path}: cannot be written ({error.strerror}); what was "
                f"saved before is whole, go on with --resume {self.path}"
            ) from error

    def _close(self) -> None:
        self.checkpoints.close()
        if self._lock is not None:
            self._lock.release()

    def latest(self, state: TrainState) -> TrainState:
        """`state` itself in a new run, else the newest saved; later history rows are dropped.

        On all devices, whatever those were that saved it.
        """
        if (mesh := devices.all_devices()).size > 1:
            state = devices.place(state, mesh)
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
            if later > epoch:  # they will be written again
                self.checkpoints.delete(later)
        return state

    def best(self, state: TrainState) -> tuple[TrainState, history.Row]:
        """The state of lowest validation loss, on one device, with its row."""
        row = history.best(self.rows)
        return devices.local(self.checkpoints.restore(state, row.epoch)), row

    def record(self, state: TrainState, row: history.Row) -> None:
        """Adds an epoch: history first, so that no checkpoint is without its row."""
        self.rows.append(row)
        self.trained = True
        if self._first:
            write_text(self.path / "history.csv", history.to_csv(self.rows))
        self.checkpoints.save(state, row.epoch, row.val_loss)
        if self._first:
            shutil.rmtree(self._paused, ignore_errors=True)

    def pause(self, state: TrainState) -> None:
        """Saves a state from within the epoch after the last of `rows`."""
        if self._first:
            shutil.rmtree(self._paused, ignore_errors=True)
        epoch = self.rows[-1].epoch if self.rows else 0
        with Checkpoints(self._paused, keep_best=0, keep_latest=1) as paused:
            paused.save(state, epoch, 0.0)


def _new_folder(
    out: Path,
    name: str,
    config: dict[str, Any],
    dataset: Dataset,
    source: str,
    backgrounds: str | None,
) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Filled under another name: a run folder is never there without its description.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=out) as new:
            folder = Path(new) / name
            folder.mkdir()
            write_json(folder / "config.json", config)
            write_json(folder / "environment.json", environment() | {"backgrounds": backgrounds})
            write_json(folder / "splits.json", dataset.describe())
            write_text(folder / "experiment.py", source)
            return _move_in(folder, out, name)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error


def _resumption(
    path: Path, config: dict[str, Any], source: str, changes: list[str], tested: bool
) -> dict[str, Any]:
    """What is different from the run in `path` so far; notes what could change its numbers."""
    now, then = environment(), read_json(path / "environment.json")
    stored = read_json(path / "config.json")
    code = [
        f"{name} {version} (now {now['versions'].get(name)})"
        for name, version in then["versions"].items()
        if version != now["versions"].get(name)
    ]
    if then["commit"] != now["commit"]:
        code.append(f"commit {then['commit']} (now {now['commit']})")
    kept = (path / "experiment.py").read_text(encoding="utf-8")
    if source != kept:
        code.append("another experiment file than the experiment.py of the run")
    notes = []
    if code:
        notes.append(f"other code than the run's, its numbers may differ: {'; '.join(code)}")
    if config["epochs"] != stored["epochs"]:
        notes.append(
            f"{config['epochs']} epochs instead of {stored['epochs']}: schedules stretch to the "
            "new length, epochs that are done had the rates of the old one"
        )
        if tested:
            notes.append("the test split was looked at before: the next figure is a second look")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    changed = {key: [stored.get(key), v] for key, v in config.items() if stored.get(key) != v}
    return now | {"config": changed, "code": code, "pictures": changes, "tested": tested}


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        CheckpointError: missing or unreadable, so not a run folder.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent}: not a run folder ({path.name}: {error})") from error


def _move_in(folder: Path, out: Path, name: str) -> Path:
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 10_000):
        path = out / (stem if number == 1 else f"{stem}-{number}")
        try:
            return folder.rename(path)
        except OSError as error:  # a run folder is not empty, so none is ever replaced
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    raise UsageError(f"--out {out}: thousands of runs named {stem}")
