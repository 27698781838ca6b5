"""Compiles training and evaluation steps and runs them epoch by epoch. No other module does."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Float, PyTree

from jaxgear.data.batches import Batch, Batches, Chunk, take
from jaxgear.errors import DivergedError
from jaxgear.machine import devices
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.machine.signals import deferred_signals
from jaxgear.program import flops
from jaxgear.training import steps
from jaxgear.training.history import Row
from jaxgear.training.optim import rate_used
from jaxgear.training.progress import Progress

AGREE = 4  # steps between the hosts' votes on whether to stop
# At most this many steps per program: signals and the progress bar wait for all of them.
CHUNK = 32


def epochs(
    state: steps.TrainState,
    train: Batches,
    val: Batches,
    *,
    first: int = 1,
    last: int,
    schedule: optax.Schedule | None,
    progress: Progress,
    layout: devices.Layout = devices.replicated,
    watch: Callable[[steps.TrainState, int], None] = lambda state, count: None,
    counted: Callable[[int], None] = lambda flops: None,
    **step_options: Any,
) -> Iterator[tuple[steps.TrainState, Row]]:
    """Trains from epoch `first` to `last`, yielding the state and the history row after each.

    The state passed in is donated: use the one that is yielded. A state from the middle of epoch
    `first` (`Stopped.state`) continues there.

    Each device works on its rows of a batch. Batch statistics and gradients cover the whole batch,
    so results equal those of one device but for rounding.

    Args:
        schedule: the optimizer's rate, for the history; None: unknown.
        layout: how devices hold the state: `devices.replicated` or `devices.fsdp`.
        watch: called after each program that was sent, with the state that it gives and its steps.
        counted: called with the FLOPs of a step (`program.flops`), when it is compiled.
        step_options: keyword arguments of `steps.train_step`.

    Raises:
        DivergedError: at the first step whose loss or gradient is not finite.
        Stopped: on SIGINT or SIGTERM, after the program that was running.
    """
    mesh = train.mesh
    devices.check_divides(step_options.get("microbatch", 0), mesh, "--microbatch")
    if mesh.size > 1:
        state = devices.place(state, mesh, layout)
    step = functools.partial(steps.train_step, **step_options)
    # Compile the schedule as one program, because it consists of many operations.
    schedule = (lambda step: math.nan) if schedule is None else jax.jit(schedule)
    run, flops_per_step = _compile_training(step, state, train, progress)
    counted(flops_per_step)
    evaluate = Evaluator(state.apply, state.variables, val, progress)
    every = 1 if jax.process_count() == 1 else AGREE
    with deferred_signals() as signals:
        for epoch in range(first, last + 1):
            start = time.perf_counter()
            begun = -(-int(state.totals.count) // train.batch_size)  # batches before an interrupt
            number, asked, previous = begun, begun, None
            for sent in run(state, epoch, begun):
                state = sent.state
                number += sent.count
                # Check the previous program, so that the device works on this one meanwhile.
                if previous is not None:
                    check_finite(previous, train, schedule)
                previous = sent
                images = sent.count * train.batch_size
                progress.step(epoch, number, len(train), devices.local(state.totals), images)
                watch(state, sent.count)
                # All hosts must stop after the same step. A vote costs a round trip.
                if number - asked >= every:
                    asked = number
                    if received := devices.highest(signals.received):
                        check_finite(previous, train, schedule)
                        raise Stopped(state, received)
            if previous is not None:
                check_finite(previous, train, schedule)
            seconds = time.perf_counter() - start
            rate = (len(train) - begun) * train.batch_size / seconds
            val_metrics, _ = evaluate(state.variables, val)
            row = row_of(epoch, state, val_metrics, schedule, time.perf_counter() - start)
            progress.epoch(row, rate, mesh.size)
            state = state.replace(totals=devices.place(steps.Metrics.zero(), mesh))
            yield state, row


def losses(
    state: steps.TrainState, train: Batches, progress: Progress, step_options: dict[str, Any]
) -> Iterator[float]:
    """Trains without end, and yields the mean loss of each step; it may be infinite or NaN.

    The state passed in is donated.
    """
    step = functools.partial(steps.train_step, **step_options)
    run, _ = _compile_training(step, state, train, progress)
    for epoch in itertools.count(1):
        for sent in run(state, epoch, 0):
            state = sent.state
            means = np.atleast_1d(sent.metrics.loss) / np.atleast_1d(sent.metrics.count)
            yield from means[: sent.count].tolist()


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


def _compile_training(
    step: Callable[..., Any], state: steps.TrainState, train: Batches, progress: Progress
) -> tuple[Run, int]:
    """Compiles a function that runs an epoch from a given batch on; and the FLOPs of a step."""
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
    program, work = compile_step("training", step, progress, state, *arguments(next(inputs)))

    def run(state, epoch, first):
        done = int(state.step)
        inputs = train.chunks(epoch, first, most) if most > 1 else train.shuffled(epoch, first)
        for examples in inputs:
            state, *sums = program(state, *arguments(examples))
            count = int(examples.count) if most > 1 else 1
            yield Sent(state, done + 1, count, *devices.local(sums), examples)
            done += count

    return run, work  # of one step: the number of steps in a chunk is data


class Stopped(SystemExit):
    """A signal ended training. `state` follows the last finished step. Exits with 128 + n."""

    def __init__(self, state: steps.TrainState, signal_number: int):
        super().__init__(128 + signal_number)
        self.state = state


class Evaluator:
    """`steps.eval_step`, compiled once for one batch shape."""

    def __init__(
        self, apply: Callable[..., Any], variables: PyTree, batches: Batches, progress: Progress
    ):
        mesh = batches.mesh
        step = jax.jit(
            functools.partial(steps.eval_step, apply),
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
    progress.say(f"compiled the {name} step in {time.perf_counter() - start:.1f} s")
    return compiled, flops(traced.jaxpr)


def row_of(
    epoch: int,
    state: steps.TrainState,
    val: steps.Metrics,
    schedule: optax.Schedule,
    seconds: float,
) -> Row:
    """The history row of the epoch whose sums `state.totals` has."""
    total = devices.local(state.totals)
    return Row(
        epoch=epoch,
        step=int(state.step),
        train_loss=float(total.loss / total.count),
        val_loss=float(val.loss / val.count),
        train_accuracy=float(total.correct / total.count),
        val_accuracy=float(val.correct / val.count),
        learning_rate=rate_used(schedule, state.opt_state, int(state.step)),
        seconds=seconds,
    )


def check_finite(sent: Sent, train: Batches, schedule: optax.Schedule) -> None:
    """Raises DivergedError for the first of these steps whose loss or gradient is not finite."""
    losses, counts, norms = (
        np.atleast_1d(values)[: sent.count]
        for values in (sent.metrics.loss, sent.metrics.count, sent.grad_norm)
    )
    losses = losses / counts
    broken = ~(np.isfinite(losses) & np.isfinite(norms))
    if not broken.any():
        return
    at = int(broken.argmax())
    step, examples = sent.first + at, devices.local(sent.examples)
    index, weight = (np.atleast_2d(rows)[at] for rows in (examples.index, examples.weight))
    raise DivergedError(
        f"diverged at step {step} (epoch {int(examples.epoch)}): loss {losses[at]:.3g}, gradient "
        f"norm {norms[at]:.3g} at learning rate {float(schedule(step - 1)):.3g}; try a lower "
        f"--peak-lr. Pictures of that batch: "
        f"{', '.join(train.name(i) for i in index[weight > 0].tolist())}"
    )
