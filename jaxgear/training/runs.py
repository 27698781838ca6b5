"""A run folder: what it holds, how it is made, and how it is opened again.

    config.json, environment.json, experiment.py    what was run, on what
    splits.json                                     every picture, its group and its side
    history.csv                                     one row an epoch
    checkpoints/, model/                            newest and best states; the best, to hand on

Figures, `test.json` and the report come from `jaxgear.experiment` and `jaxgear.evaluation`.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from jaxgear.data.dataset import Dataset
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import write_json, write_text
from jaxgear.training import history
from jaxgear.training.checkpoints import Checkpoints
from jaxgear.training.steps import TrainState

PACKAGES = ("jaxgear", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


class Run:
    """An open run folder. A context manager: leaving it closes the checkpoints."""

    def __init__(self, path: Path, rows: list[history.Row]):
        self.path = path
        self.rows = rows
        self.checkpoints = Checkpoints(path / "checkpoints")

    @classmethod
    def create(
        cls,
        out: str | Path,
        name: str,
        config: dict[str, Any],
        dataset: Dataset,
        source: str | Path,
    ) -> "Run":
        """A new folder OUT/<name>-<time>[-n] that describes the run that is about to start.

        Raises:
            UsageError: OUT cannot be written.
        """
        try:
            path = _new_folder(Path(out), name)
            write_json(path / "config.json", config)
            write_json(path / "environment.json", environment())
            write_json(path / "splits.json", _splits(dataset))
            write_text(path / "experiment.py", Path(source).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error
        return cls(path, [])

    @classmethod
    def reopen(cls, path: str | Path, dataset: Dataset) -> "Run":
        """An earlier run, to continue it.

        Raises:
            CheckpointError: not a run folder, no checkpoint in it, or the pictures have changed.
        """
        path = Path(path)
        before = read_json(path / "splits.json")["fingerprint"]
        if before != dataset.folder.fingerprint:
            raise CheckpointError(
                f"{path}: the pictures have changed since this run started (fingerprint "
                f"{before[:12]}, now {dataset.folder.fingerprint[:12]}); start a new run"
            )
        history_file = path / "history.csv"
        rows = history.from_csv(history_file.read_text()) if history_file.exists() else []
        run = cls(path, rows)
        if not run.checkpoints.epochs:
            raise CheckpointError(f"{path}: no checkpoint to resume from; start a new run")
        return run

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind in (KeyboardInterrupt, SystemExit) and self.checkpoints.epochs:
            print(f"interrupted; go on with --resume {self.path}", file=sys.stderr)
        self.checkpoints.__exit__(kind, *error)

    def latest(self, state: TrainState) -> TrainState:
        """`state` itself in a new run, else the newest saved; later history rows are dropped."""
        if not self.checkpoints.epochs:
            return state
        epoch = self.checkpoints.epochs[-1]
        self.rows = [row for row in self.rows if row.epoch <= epoch]
        return self.checkpoints.restore(state, epoch)

    def best(self, state: TrainState) -> tuple[TrainState, history.Row]:
        """The state of lowest validation loss, with its row."""
        row = history.best(self.rows)
        return self.checkpoints.restore(state, row.epoch), row

    def record(self, state: TrainState, row: history.Row) -> None:
        """Adds an epoch: history first, so that no checkpoint is without its row."""
        self.rows.append(row)
        write_text(self.path / "history.csv", history.to_csv(self.rows))
        self.checkpoints.save(state, row)


def environment() -> dict[str, Any]:
    """Versions, device, commit and command line."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "commit": _commit(),
        "argv": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        CheckpointError: missing or unreadable, so not a run folder.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent}: not a run folder ({path.name}: {error})") from error


def _new_folder(out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 10_000):
        path = out / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise UsageError(f"--out {out}: thousands of runs named {stem}")


def _splits(dataset: Dataset) -> dict[str, Any]:
    folder = dataset.folder
    return {
        "fingerprint": folder.fingerprint,
        "classes": list(folder.classes),
        "pictures": [
            {
                "path": record.path,
                "sha256": record.sha256,
                "class": folder.classes[record.label],
                "group": group,
                "side": side,
            }
            for record, group, side in zip(
                folder.records, dataset.groups, dataset.sides, strict=True
            )
        ],
    }


def _commit() -> str | None:
    """The commit of the checkout this code runs from, with `+` if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        if head.returncode:
            return None
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
