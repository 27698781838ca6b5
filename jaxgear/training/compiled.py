"""Training and evaluation steps, compiled for one batch shape and each size of images."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, PyTree

from jaxgear.data.batches import Batch, Batches, Chunk, take
from jaxgear.machine import devices
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.machine.process import collect_as_usual
from jaxgear.program import flops
from jaxgear.training import steps
from jaxgear.training.progress import Progress

Step = TypeVar("Step")

# At most this many steps per program: signals and the progress bar wait for all of them.
CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Sent:
    """One program that was sent to the devices: `count` steps, from step `first` on."""

    state: steps.TrainState  # after these steps
    first: int
    count: int
    metrics: steps.Metrics  # [], or [steps]
    grad_norm: Float[ArrayLike, "..."]  # [], or [steps]
    examples: Batch | Chunk


Run = Callable[[steps.TrainState, int, int], Iterator[Sent]]


def steps_a_program(train: Batches) -> int:
    """The number of steps to compile into one program: 1 on CPUs and for streamed data.

    An accelerator finishes a step of a small network before Python sends the next. CPUs run the
    operations of a compiled loop on one core (results/README.md, "Epochs as one compiled loop").
    """
    fits = train.resident and jax.default_backend() != "cpu"
    return min(CHUNK, len(train)) if fits else 1


class ByScale(Generic[Step]):
    """A step for each scale of images, compiled by a thread in the order of `scales`.

    So a step is compiled while another one trains.
    """

    def __init__(self, compiled: Callable[[float], Step], scales: Iterable[float]):
        # A thread does not inherit what `with` set in this one.
        precision = jax.config.jax_default_matmul_precision
        device = jax.config.jax_default_device

        def compile_one(scale: float) -> Step:
            with jax.default_matmul_precision(precision), jax.default_device(device):
                return compiled(scale)

        thread = ThreadPoolExecutor(1, "compile")
        self._steps: dict[float, Future[Step]] = {
            scale: thread.submit(compile_one, scale) for scale in dict.fromkeys(scales)
        }
        thread.shutdown(wait=False)

    def __getitem__(self, scale: float) -> Step:
        return self._steps[scale].result()

    @property
    def done(self) -> bool:
        """Whether all are compiled."""
        return all(step.done() for step in self._steps.values())


def compile_training(
    step: Callable[..., Any],
    state: PyTree,
    train: Batches,
    progress: Progress,
    name: str = "training",
) -> tuple[Run, int]:
    """Compiles a function that runs an epoch from a given batch on; and the FLOPs of a step.

    `state` may be the shapes of a state (`devices.shapes`).
    """
    mesh, most, shardings = train.mesh, steps_a_program(train), None
    if mesh.size > 1:
        whole = devices.replicated(mesh)
        shardings = (jax.tree.map(lambda leaf: leaf.sharding, state), whole, whole)
    if most > 1:
        chunked, inputs = functools.partial(steps.train_chunk, step), train.chunks(1, 0, most)

        def step(state, images, labels, chunk):
            return chunked(functools.partial(take, mesh, images, labels), state, chunk)

        arguments = lambda chunk: (train.images, train.labels, chunk)  # noqa: E731
    else:
        inputs, arguments = train.ordered(), lambda batch: (batch,)
    step = jax.jit(step, donate_argnums=0, out_shardings=shardings)
    program, work = compile_step(name, step, progress, state, *arguments(next(inputs)))

    def run(state, epoch, first):
        done = int(state.step)
        inputs = train.chunks(epoch, first, most) if most > 1 else train.shuffled(epoch, first)
        for examples in inputs:
            state, *sums = program(state, *arguments(examples))
            count = int(examples.count) if most > 1 else 1
            yield Sent(state, done + 1, count, *devices.local(sums), examples)
            done += count

    return run, work  # of one step: the number of steps in a chunk is data


class Evaluator:
    """`steps.eval_step`, compiled once for one batch shape."""

    def __init__(
        self,
        apply: Callable[..., Any],
        variables: PyTree,
        batches: Batches,
        progress: Progress,
        scale: float = 1.0,
    ):
        mesh = batches.mesh
        step = jax.jit(
            functools.partial(steps.eval_step, apply, scale=scale),
            out_shardings=None if mesh.size == 1 else devices.replicated(mesh),
        )
        batch = next(batches.ordered())
        self._step, _ = compile_step("evaluation", step, progress, variables, batch)

    def __call__(
        self, variables: PyTree, batches: Batches
    ) -> tuple[steps.Metrics, Float[np.ndarray, "N K"]]:
        """Sums over all examples, and the logits of each in the order of the data set."""
        total, logits = None, []
        for batch in batches.ordered():
            metrics, batch_logits = devices.local(self._step(variables, batch))
            total = metrics if total is None else total + metrics
            logits.append(batch_logits)
        return total, np.concatenate([np.asarray(part) for part in logits])[: batches.examples]


def compile_step(name: str, step: Any, progress: Progress, *arguments: PyTree) -> tuple[Any, int]:
    """`step` compiled for the shapes of `arguments`, and its FLOPs; prints how long that took."""
    start = time.perf_counter()
    keep_compiled()
    traced = step.trace(*arguments)
    compiled = traced.lower().compile()
    collect_as_usual()  # the start of the process is over
    progress.say(f"compiled the {name} step in {time.perf_counter() - start:.1f} s")
    return compiled, flops(traced.jaxpr)
