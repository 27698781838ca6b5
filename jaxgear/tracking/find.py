"""Finds the trackers that `--track` names.

A tracker is a function of a run folder, its history so far and its test:

    def track(run: Path, rows: Sequence[Row], test: dict[str, Any] | None) -> None:
        "Shows the epochs of `rows` that are not shown yet, and drops those that are no more."

The first host calls it when training starts or goes on, after each epoch, and after the test. Then
`test` has the fields of test.json, and `run` holds curves.png, confusion.png and predictions.png.
`run` always holds histograms.json (histograms.py). A resumed run may have lost the epochs after its
newest checkpoint, so a tracker compares what it has with `rows`. The history is complete each time:
what one call could not send, the next one sends.

Your own function is `--track MODULE:FUNCTION`, in a module that Python finds (the current folder is
looked through too). For example, for Weights & Biases:

    def track(run, rows, test):
        to = wandb.run or wandb.init(id=run.name, resume="allow")
        for row in rows[to.step :]:
            to.log(dataclasses.asdict(row), step=row.epoch)
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError, first_line
from jaxgear.files import read_json
from jaxgear.machine import devices
from jaxgear.tracking.histograms import Histograms
from jaxgear.training.history import Row
from jaxgear.training.state import TrainState

Track = Callable[[Path, Sequence[Row], dict[str, Any] | None], None]
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}  # what each tracker needs


class Trackers:
    """The trackers of `--track`, names with commas between them; "" has none.

    Raises:
        UsageError: there is no such tracker, or a package that it needs is not installed.
    """

    def __init__(self, names: str):
        self._trackers = {name: _tracker(name) for name in filter(None, names.split(","))}
        self._histograms = Histograms()
        self._begun = False

    def show(
        self,
        run: Path,
        rows: Sequence[Row],
        state: TrainState | None = None,
        *,
        tested: bool = False,
    ) -> None:
        """Calls each tracker, on the first host; after the test, `tested` is set.

        All hosts call this, as `state`, that of the last row, may lie on the devices of several.

        Raises:
            UsageError: a tracker fails at the first call. Later its error is a note on stderr, and
                the run goes on: the next call shows what is missing.
        """
        if self._trackers and state is not None:
            self._histograms.add(run, rows, state)
        if not devices.first_host():
            return
        test = read_json(run / "test.json") if tested else None
        for name, track in self._trackers.items():
            try:
                track(run, rows, test)
            except Exception as error:  # of a server, a full disk, or a function of the user
                line = f"--track {name}: {type(error).__name__}: {first_line(error)}"
                if not self._begun:
                    raise UsageError(line) from error
                print(f"note: {line}; the run goes on", file=sys.stderr)
        self._begun = True


def _tracker(name: str) -> Track:
    if name in PACKAGES:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UsageError(
                f"--track {name} needs {PACKAGES[name]}: pip install 'jaxgear[{name}]'"
            )
        return importlib.import_module(f"jaxgear.tracking.{name}").Tracker()
    module, colon, function = name.partition(":")
    if not colon:
        known = ", ".join(PACKAGES)
        raise UsageError(f"--track {name}: neither one of {known} nor MODULE:FUNCTION")
    here = str(Path.cwd())
    if here not in sys.path:  # an experiment file elsewhere was run, or an installed command
        sys.path.append(here)
    try:
        track = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--track {name}: not found ({error})") from error
    if not callable(track):
        raise UsageError(f"--track {name}: not a function")
    return track
