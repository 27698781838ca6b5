"""Trains one trial of a study: as a process of an experiment file, or as a call of a function."""

import abc
import dataclasses
import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxgear.errors import DivergedError, GearError, UsageError
from jaxgear.experiment.config import Config, stored_config
from jaxgear.experiment.recipe import source_of
from jaxgear.study.variants import as_flags
from jaxgear.training import history

POLL = 0.2  # seconds between looks at a process and its history
LOG = "log.txt"
# Starts Python anew. SIGTERM tells the process when its parent ends, so that it saves its state
# (PR_SET_PDEATHSIG). A function for the fork would deadlock with JAX's threads.
WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
# What to do after each epoch of a trial; True ends the trial.
Watch = Callable[[history.Row], bool]


class Interrupted(SystemExit):
    """A signal ended a trial from outside of the study."""


class Executor(abc.ABC):
    """Trains trials of one experiment."""

    config: type[Config]
    name: str  # of the experiment
    source: str  # its text
    flags: Sequence[str]  # of all trials

    @abc.abstractmethod
    def __call__(self, values: dict[str, Any], folder: Path, lock: int | None, watch: Watch) -> str:
        """Trains a run with these fields, and returns the state in which the trial ended.

        Args:
            values: config fields, with `resume` to continue a run.
            folder: of the trial; run folders and the log go there.
            lock: descriptor of the trial's lock.

        Raises:
            GearError: an error that every trial would meet.
            Interrupted: a signal ended the trial.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends the trial that another thread trains; it can be resumed."""


class Command(Executor):
    """Trains each trial in a process of its own, so that one that runs out of memory ends alone."""

    def __init__(self, experiment: str, flags: Sequence[str] = (), device: str | None = None):
        """Finds an experiment: a file such as experiments/scratch.py, or the name of a module.

        Args:
            flags: flags of all trials.
            device: number of the GPU to use; None: all devices.

        Raises:
            UsageError: there is no such experiment.
        """
        self.module, self._root = load(experiment)
        self.config = self.module.Config
        self.name, self.flags = self.module.__name__, tuple(flags)
        self.source = Path(self.module.__file__).read_text(encoding="utf-8")
        self._device = device
        self._process: subprocess.Popen | None = None

    def __call__(self, values: dict[str, Any], folder: Path, lock: int | None, watch: Watch) -> str:
        flags = as_flags(values)
        if "resume" not in values:
            flags = [*self.flags, *flags]
        paths = [str(self._root), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        if self._device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._device
        first = ["-P", "-c", WITH_PARENT] if sys.platform == "linux" else []
        log = folder / LOG
        with log.open("ab") as output:
            # -P: a folder of the same name in the current folder must not take the file's place.
            # The process holds the lock too: until it ends, no other study takes the trial.
            # In a session of its own it gets no Ctrl-C of the terminal beside our SIGTERM: a second
            # signal would end it before its state is saved.
            process = self._process = subprocess.Popen(
                [sys.executable, *first, "-P", "-m", self.name, *flags],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=() if lock is None else (lock,), start_new_session=True,
            )  # fmt: skip
            try:
                pruned = _follow(process, folder, watch)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        return "pruned" if pruned else _state(process.returncode, log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()


class Function(Executor):
    """Trains each trial by calling `main(config)` in this process, as a notebook wants it."""

    flags = ()

    def __init__(self, main: Callable[[Any], Path], config: Config):
        self._main, self._config = main, config
        self.config = type(config)
        self.name, self.source = main.__qualname__, source_of(main)

    def __call__(self, values: dict[str, Any], folder: Path, lock: int | None, watch: Watch) -> str:
        config = self._config
        if "resume" in values:
            config = stored_config(self.config, values["resume"])
        config = dataclasses.replace(config, **values)
        config.check()
        try:
            self._main(config)
        except DivergedError:
            return "diverged"
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                return "out of memory"
            raise
        return "complete"

    def stop(self) -> None:
        """Nothing: a call cannot be ended from another thread."""


def load(experiment: str) -> tuple[ModuleType, Path]:
    """The module of an experiment, and the folder to import it from.

    Raises:
        UsageError: there is no such file or module, it cannot be imported, or it has no Config.
    """
    path = Path(experiment)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise UsageError(f"{experiment}: no such file")
        path = path.resolve()
        root, name = path.parent, path.stem
        while (root / "__init__.py").exists():
            root, name = root.parent, f"{root.name}.{name}"
    else:
        root, name = Path.cwd(), experiment
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            raise UsageError(f"{experiment}: no such file or module") from error
        raise UsageError(f"{experiment}: cannot be imported ({error})") from error
    except (ImportError, SyntaxError, NameError, AttributeError) as error:
        raise UsageError(f"{experiment}: cannot be imported ({error})") from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise UsageError(f"{experiment}: has no Config, as experiments have (see scratch.py)")
    return module, root


def run_of(folder: Path) -> Path | None:
    """The run folder of a trial, or None before it is there."""
    return next(iter(sorted(path.parent for path in folder.glob("*/config.json"))), None)


def rows_of(folder: Path) -> list[history.Row]:
    """The epochs that a trial has finished."""
    if (run := run_of(folder)) is None or not (run / "history.csv").exists():
        return []
    return history.from_csv((run / "history.csv").read_text(encoding="utf-8"))


def _follow(process: subprocess.Popen, folder: Path, watch: Watch) -> bool:
    """Waits for a process, and gives each new epoch to `watch`; whether that ended it."""
    seen = len(rows_of(folder))
    while process.poll() is None:
        time.sleep(POLL)
        rows = rows_of(folder)
        for row in rows[seen:]:
            if watch(row):
                process.terminate()
                process.wait()
                return True
        seen = len(rows)
    return False


def _state(code: int, log: Path) -> str:
    """The state in which a process ended, from its exit code and its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    if code == 0:
        return "complete"
    if code == DivergedError.exit_code:
        return "diverged"
    if code in (-9, 137) or "memory" in lines[-1]:
        return "out of memory"
    if code in (130, 143, -2, -15):
        raise Interrupted(code if code > 0 else 128 - code)
    if code == 1 or code < 0:
        return "failed"
    error = GearError(f"{log}: {lines[-1].removeprefix('error: ')}")
    error.exit_code = code
    raise error
