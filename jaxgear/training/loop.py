"""Runs the compiled steps epoch by epoch, and says what each epoch gave."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jaxgear.data.batches import Batches
from jaxgear.errors import DivergedError
from jaxgear.machine import devices
from jaxgear.machine.signals import deferred_signals
from jaxgear.training import steps
from jaxgear.training.compiled import ByScale, Evaluator, Run, Sent, compile_training
from jaxgear.training.history import Row
from jaxgear.training.optim import rate_used
from jaxgear.training.progress import Progress

AGREE = 4  # steps between the hosts' votes on whether to stop


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
    scales: Sequence[float] = (),
    watch: Callable[[steps.TrainState, int], None] = lambda state, count: None,
    counted: Callable[[int | list[int]], None] = lambda flops: None,
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
        scales: of the training and validation images in each epoch (`data.batches.resized`); empty:
            whole images.
        watch: called after each program is sent, with the resulting state and number of steps.
        counted: called once, after compilation, with the FLOPs of a step (`program.flops`); with
            `scales`, a list: of a step of each epoch.
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
    shapes, apply, variables = devices.shapes(state), state.apply, devices.shapes(state.variables)

    def compiled(scale: float) -> tuple[Run, int]:
        name = f"{side(train, scale)} px training" if scales else "training"
        return compile_training(functools.partial(step, scale=scale), shapes, train, progress, name)

    order = [*scales[first - 1 :], *scales] or [1.0]
    programs, is_counted = ByScale(compiled, order), False
    programs[order[0]]  # the evaluation step is compiled while this one trains
    evaluators = ByScale(lambda scale: Evaluator(apply, variables, val, progress, scale), order)
    every = 1 if jax.process_count() == 1 else AGREE
    with deferred_signals() as signals:
        for epoch in range(first, last + 1):
            start = time.perf_counter()
            begun = -(-int(state.totals.count) // train.batch_size)  # batches before an interrupt
            number, asked, previous = begun, begun, None
            scale = scales[epoch - 1] if scales else 1.0
            run, work = programs[scale]
            if not is_counted and (programs.done or epoch == last):
                counted([programs[scale][1] for scale in scales] or work)
                is_counted = True
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
            val_metrics, _ = evaluators[scale](state.variables, val)
            row = row_of(
                *(epoch, state, val_metrics, schedule, time.perf_counter() - start),
                size=side(train, scale) if scales else None,
            )
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
    run, _ = compile_training(step, state, train, progress)
    for epoch in itertools.count(1):
        for sent in run(state, epoch, 0):
            state = sent.state
            means = np.atleast_1d(sent.metrics.loss) / np.atleast_1d(sent.metrics.count)
            yield from means[: sent.count].tolist()


class Stopped(SystemExit):
    """A signal ended training. `state` follows the last finished step. Exits with 128 + n."""

    def __init__(self, state: steps.TrainState, signal_number: int):
        super().__init__(128 + signal_number)
        self.state = state


def row_of(
    epoch: int,
    state: steps.TrainState,
    val: steps.Metrics,
    schedule: optax.Schedule,
    seconds: float,
    size: int | None,
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
        size=size,
    )


def side(train: Batches, scale: float) -> int:
    """The side of the images of `train`, scaled as `data.batches.resized`."""
    return round(scale * train.images.shape[1])


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
