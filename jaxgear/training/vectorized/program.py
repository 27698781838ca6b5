"""The compiled steps of several lanes: `jax.vmap` of their joined steps."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num, PyTree

from jaxgear.data.batches import Batch, Batches, Chunk, take
from jaxgear.machine import devices
from jaxgear.training import compiled, steps
from jaxgear.training.progress import Progress
from jaxgear.training.state import Metrics, TrainState
from jaxgear.training.vectorized.join import joined
from jaxgear.training.vectorized.lane import Lane

Leaves = list[Array]


class Program:
    """The states of L lanes, and the programs that train and evaluate all of them.

    Devices share the lanes equally.
    """

    def __init__(self, lanes: Sequence[Lane], progress: Progress):
        """Compiles the programs.

        Raises:
            DifferError: the steps of the lanes differ in more than numbers.
        """
        count, self.steps = len(lanes), compiled.steps_a_program(lanes[0].train)
        mesh = devices.mesh_of(jax.devices()[: math.gcd(count, jax.device_count())])
        self._lanes = devices.by_rows(mesh)
        self._trees = [jax.tree.structure(lane.state) for lane in lanes]
        self._numbers = jax.device_put(np.arange(count, dtype=np.int32), self._lanes)
        self._state = self._stack([jax.tree.leaves(lane.state) for lane in lanes])
        self._data: tuple[Array, ...] = ()
        if self.steps > 1:
            self._data = jax.device_put(_padded([lane.train for lane in lanes]), self._lanes)
            inputs = [next(lane.train.chunks(1, 0, self.steps)) for lane in lanes]
        else:
            inputs = [next(lane.train.ordered()) for lane in lanes]
        self._idle = [_idle(examples) for examples in inputs]
        self._idle_val = [_idle(next(lane.val.ordered())) for lane in lanes]
        state = devices.shapes(self._state)

        def programs(scale: float) -> tuple[Any, Any]:
            step = _step(lanes, scale)
            if self.steps > 1:
                train = functools.partial(_train_chunk, step, lanes[0].train)
            else:
                train = functools.partial(_train_batch, step)
            evaluate = joined([lane.evaluation(scale) for lane in lanes])
            sums = lambda number, state, batch: Metrics(  # noqa: E731
                *evaluate(number, *state, *jax.tree.leaves(batch))
            )
            return (
                self._compiled("training", train, progress, state, *self._data, stacked),
                self._compiled("evaluation", sums, progress, state, stacked_val),
            )

        stacked, stacked_val = self._stack(inputs), self._stack(self._idle_val)
        scales = [lane.scale(epoch) for lane in lanes for epoch in range(lane.first, lane.last + 1)]
        self._programs = compiled.ByScale(programs, sorted(scales))
        self._programs[min(scales)]  # raises
        self._unstack = jax.jit(lambda leaves: [[x[i] for x in leaves] for i in range(count)])

    def _compiled(self, name: str, function: Any, progress: Progress, *arguments: PyTree) -> Any:
        donated = (1,) if name == "training" else ()
        step = jax.jit(jax.vmap(function), donate_argnums=donated, out_shardings=self._lanes)
        return compiled.compile_step(name, step, progress, self._numbers, *arguments)[0]

    def _stack(self, trees: Sequence[PyTree]) -> PyTree:
        return jax.device_put(jax.tree.map(lambda *x: jnp.stack(x), *trees), self._lanes)

    def train(
        self, inputs: Sequence[Batch | Chunk | None], scale: float
    ) -> tuple[Metrics, Float[Array, "L ..."]]:
        """Trains a batch or a chunk of steps of each lane; a lane without one stays as it is.

        The images are scaled by `scale`. Returns the metrics and gradient norms, [L] or [L, steps].
        """
        inputs = [self._idle[i] if x is None else x for i, x in enumerate(inputs)]
        train, _ = self._programs[scale]
        self._state, *sums = train(self._numbers, self._state, *self._data, self._stack(inputs))
        return tuple(sums)

    def evaluate(self, batches: Sequence[Batch | None], scale: float) -> Metrics:
        """Sums over a validation batch of each lane, [L]."""
        _, evaluate = self._programs[scale]
        batches = [self._idle_val[i] if x is None else x for i, x in enumerate(batches)]
        return evaluate(self._numbers, self._state, self._stack(batches))

    def states(self) -> list[TrainState]:
        """The state of each lane, on one device."""
        lanes = devices.local(self._unstack(self._state))
        return [tree.unflatten(leaves) for tree, leaves in zip(self._trees, lanes, strict=True)]

    def begin_epoch(self) -> None:
        """Sets the sums of all lanes to zero."""
        state = self._trees[0].unflatten(self._state)
        zeros = jax.device_put(jax.tree.map(np.zeros_like, state.totals), self._lanes)
        self._state = jax.tree.leaves(state.replace(totals=zeros))


def _step(lanes: Sequence[Lane], scale: float) -> Any:
    """`steps.train_step` of lane `number`, on the leaves of its state."""
    program = joined([lane.step(scale) for lane in lanes])

    def step(
        number: Int[Array, ""], state: Leaves, batch: Batch
    ) -> tuple[Leaves, Metrics, Float[Array, ""]]:
        leaves = program(number, *state, *jax.tree.leaves(batch))
        *sums, norm = leaves[len(state) :]
        return leaves[: len(state)], Metrics(*sums), norm

    return step


def _train_batch(
    step: Any, number: Int[Array, ""], state: Leaves, batch: Batch
) -> tuple[Leaves, Metrics, Float[Array, ""]]:
    nothing = (state, Metrics.zero(), jnp.zeros(()))
    return lax.cond(batch.weight.any(), lambda: step(number, state, batch), lambda: nothing)


def _train_chunk(
    step: Any,
    train: Batches,
    number: Int[Array, ""],
    state: Leaves,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    examples: Int[Array, ""],
    chunk: Chunk,
) -> tuple[Leaves, Metrics, Float[Array, " T"]]:
    rows = functools.partial(take, train.mesh, images, labels, examples=examples)
    return steps.train_chunk(functools.partial(step, number), rows, state, chunk)


def _idle(examples: Batch | Chunk) -> Batch | Chunk:
    """A batch or chunk of the same shape, in which nothing counts."""
    if isinstance(examples, Chunk):
        return examples.replace(count=np.int32(0))
    return examples.replace(weight=jnp.zeros_like(examples.weight))


def _padded(trains: Sequence[Batches]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels of all lanes, padded to as many rows, and the real rows of each."""
    examples = np.array([train.examples for train in trains], np.int32)

    def rows(array: Array) -> np.ndarray:
        missing = examples.max() - len(array)
        return np.pad(np.asarray(array), [(0, missing), *[(0, 0)] * (array.ndim - 1)])

    images, labels = (
        np.stack([rows(getattr(train, name)) for train in trains]) for name in ("images", "labels")
    )
    return images, labels, examples
