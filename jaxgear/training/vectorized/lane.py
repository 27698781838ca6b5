"""One of several runs that are trained as one program."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.extend.core import ClosedJaxpr

from jaxgear.data.batches import Batch, Batches
from jaxgear.training import steps
from jaxgear.training.state import Metrics, TrainState
from jaxgear.training.vectorized.join import DifferError, compare


@dataclasses.dataclass(frozen=True, eq=False)
class Lane:
    """A run, on one device."""

    name: str
    state: TrainState
    train: Batches
    val: Batches
    first: int  # epoch to begin or to continue
    last: int
    schedule: optax.Schedule
    step_options: dict[str, Any]  # keyword arguments of `steps.train_step`

    @functools.cached_property
    def step(self) -> ClosedJaxpr:
        """The training step, from the leaves of a state and of a batch."""
        step = functools.partial(steps.train_step, **self.step_options)
        return jax.make_jaxpr(step)(self.state, next(self.train.ordered()))

    @functools.cached_property
    def evaluation(self) -> ClosedJaxpr:
        """The evaluation step, from the leaves of a state and of a batch to those of sums."""

        def evaluate(state: TrainState, batch: Batch) -> Metrics:
            return steps.eval_step(state.apply, state.variables, batch)[0]

        return jax.make_jaxpr(evaluate)(self.state, next(self.val.ordered()))


def grouped(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """The lanes in groups that one program can train: their steps differ in numbers alone."""
    groups: list[list[Lane]] = []
    for lane in lanes:
        for group in groups:
            try:
                compare([group[0].step, lane.step])
                compare([group[0].evaluation, lane.evaluation])
            except DifferError:
                continue
            group.append(lane)
            break
        else:
            groups.append([lane])
    return groups
