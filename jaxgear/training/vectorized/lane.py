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
    scales: Sequence[float] = ()  # as `loop.epochs`

    def scale(self, epoch: int) -> float:
        """The scale of the images of an epoch."""
        return self.scales[epoch - 1] if self.scales else 1.0

    @functools.cache  # noqa: B019 (a lane lives as long as its process)
    def step(self, scale: float = 1.0) -> ClosedJaxpr:
        """The training step, from the leaves of a state and of a batch."""
        step = functools.partial(steps.train_step, **self.step_options, scale=scale)
        return jax.make_jaxpr(step)(self.state, next(self.train.ordered()))

    @functools.cache  # noqa: B019
    def evaluation(self, scale: float = 1.0) -> ClosedJaxpr:
        """The evaluation step, from the leaves of a state and of a batch to those of sums."""

        def evaluate(state: TrainState, batch: Batch) -> Metrics:
            return steps.eval_step(state.apply, state.variables, batch, scale)[0]

        return jax.make_jaxpr(evaluate)(self.state, next(self.val.ordered()))


def grouped(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """The lanes in groups that one program can train: their steps differ in numbers alone."""
    groups: list[list[Lane]] = []
    for lane in lanes:
        for group in groups:
            if set(group[0].scales) != set(lane.scales):
                continue
            try:
                compare([group[0].step(), lane.step()])
                compare([group[0].evaluation(), lane.evaluation()])
            except DifferError:
                continue
            group.append(lane)
            break
        else:
            groups.append([lane])
    return groups
