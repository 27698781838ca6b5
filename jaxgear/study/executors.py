"""What trains the trials of a study. Here: calls of a function; processes.py has processes."""

import abc
import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxgear.errors import DivergedError, UsageError
from jaxgear.experiment.config import Config, stored_config
from jaxgear.experiment.recipe import source_of
from jaxgear.training import history


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial to train, or to continue."""

    values: dict[str, Any]  # config fields, with `resume` to continue a run
    folder: Path  # of the trial; run folders and the log go there
    lock: int | None = None  # descriptor of the trial's lock
    # Called after each epoch; True ends the trial.
    watch: Callable[[history.Row], bool] = lambda row: False


class Interrupted(SystemExit):
    """A signal ended a trial from outside of the study."""


class Executor(abc.ABC):
    """Trains trials of one experiment."""

    config: type[Config]
    name: str  # of the experiment
    source: str  # its text
    flags: Sequence[str]  # of all trials

    at_once = 1  # trials that it trains at the same time, at most

    @abc.abstractmethod
    def __call__(self, jobs: Sequence[Job]) -> list[str]:
        """Trains 1 to `at_once` trials, and returns the state in which each ended.

        Raises:
            GearError: an error that every trial would meet.
            Interrupted: a signal ended the trials.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends the trial that another thread trains; it can be resumed."""


class Function(Executor):
    """Trains each trial by calling `main(config)` in this process, as a notebook wants it."""

    flags = ()

    def __init__(self, main: Callable[[Any], Path], config: Config):
        self._main, self._config = main, config
        self.config = type(config)
        self.name, self.source = main.__qualname__, source_of(main)

    def __call__(self, jobs: Sequence[Job]) -> list[str]:
        return [self._train(job.values) for job in jobs]

    def stop(self) -> None:
        """Nothing: a call cannot be ended from another thread."""

    def _train(self, values: dict[str, Any]) -> str:
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
    return history.read(run) if (run := run_of(folder)) else []
