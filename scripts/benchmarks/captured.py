"""What an experiment file makes before it trains: network, optimizer, augmentation, pictures.

Benchmarks take these from the experiment itself, so that they cannot time something else.
"""

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn

from jaxgear import experiment
from jaxgear.data.batches import Batches
from jaxgear.training import loop, steps


@dataclasses.dataclass(frozen=True)
class Captured:
    """The arguments of the experiment's call of `loop.epochs`."""

    state: steps.TrainState
    train: Batches
    val: Batches
    options: dict[str, Any]

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.state.apply.__self__

    @property
    def step_options(self) -> dict[str, Any]:
        """Those of `options` that `steps.train_step` takes."""
        known = inspect.signature(steps.train_step).parameters
        return {name: value for name, value in self.options.items() if name in known}


def capture(main: Callable[[Any], Path], config: experiment.Config) -> Captured:
    """Runs an experiment up to its loop, without a run folder."""
    found = []

    def stop_here(state: Any, train: Batches, val: Batches, **options: Any) -> None:
        found.append(Captured(state, train, val, options))
        raise _Reached

    run = mock.Mock(rows=[], latest=lambda state: state)
    with (
        mock.patch.object(experiment, "start", return_value=contextlib.nullcontext(run)),
        mock.patch.object(loop, "epochs", stop_here),
        contextlib.redirect_stdout(sys.stderr),
        contextlib.suppress(_Reached),
    ):
        main(config)
    return found[0]


class _Reached(Exception):
    """The experiment has come to its loop."""
