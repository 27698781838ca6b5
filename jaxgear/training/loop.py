"""The only place where training steps are compiled: epochs, and passes of evaluation."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxgear import devices
from jaxgear.compile_cache import keep_compiled
from jaxgear.data.batches import Batch, Batches
from jaxgear.errors import DivergedError
from jaxgear.training import steps
from jaxgear.training.history import Row
from jaxgear.training.progress import Progress
from jaxgear.training.signals import deferred_signals

AGREE = 4  # steps after which several hosts ask each other whether to stop


def epochs(
    state: steps.TrainState,
    train: Batches,
    val: Batches,
    *,
    first: int = 1,
    last: int,
    schedule: optax.Schedule,
    progress: Progress,
    layout: devices.Layout = devices.replicated,
    **step_options: Any,
) -> Iterator[tuple[steps.TrainState, Row]]:
    """Trains from epoch `first` to `last`, yielding the state and the history row after each.

    `schedule` is only recorded; the optimizer is in `state.tx`. `step_options` go to
    `steps.train_step`. The state that is passed in is donated: use the one that is yielded. A state
    from within epoch `first` (`Stopped.state`) goes on there.

    On several devices each works on its rows of a batch, and `layout` says where the state is:
    `devices.replicated`, or `devices.fsdp`. Batch statistics and gradients are those of the whole
    batch, so the numbers are those of one device but for rounding.

    Raises:
        DivergedError: at the first step whose loss or gradient is not finite.
        Stopped: after the step that was under way when SIGINT or SIGTERM came.
    """
    mesh = train.mesh
    devices.check_divides(step_options.get("microbatch", 0), mesh, "--microbatch")
    step, shardings = functools.partial(steps.train_step, **step_options), None
    if mesh.size > 1:
        state = devices.place(state, mesh, layout)
        whole = devices.replicated(mesh)
        shardings = (jax.tree.map(lambda leaf: leaf.sharding, state), whole, whole)
    step = jax.jit(step, donate_argnums=0, out_shardings=shardings)
    train_step = compile_step("training", step, progress, state, next(train.ordered()))
    evaluate = Evaluator(state.apply, state.variables, val, progress)
    every = 1 if jax.process_count() == 1 else AGREE
    with deferred_signals() as signals:
        for epoch in range(first, last + 1):
            start = time.perf_counter()
            begun = -(-int(state.totals.count) // train.batch_size)  # batches, before interruption
            done, previous = int(state.step), None
            for number, batch in enumerate(train.shuffled(epoch, begun), 1):
                state, *sums = train_step(state, batch)
                metrics, grad_norm = devices.local(sums)
                # One step behind: the device works on this step while the host looks at the last.
                if previous is not None:
                    _check_finite(*previous, train, schedule)
                previous = (done + number, metrics, grad_norm, batch)
                progress.step(epoch, begun + number, len(train), metrics, train.batch_size)
                # All hosts stop after the same step; asking each other costs a round trip.
                if number % every == 0 and (received := devices.highest(signals.received)):
                    _check_finite(*previous, train, schedule)
                    raise Stopped(state, received)
            if previous is not None:
                _check_finite(*previous, train, schedule)
            seconds = time.perf_counter() - start
            rate = (len(train) - begun) * train.batch_size / seconds
            val_metrics, _ = evaluate(state.variables, val)
            total = devices.local(state.totals)
            row = Row(
                epoch=epoch,
                step=int(state.step),
                train_loss=float(total.loss / total.count),
                val_loss=float(val_metrics.loss / val_metrics.count),
                train_accuracy=float(total.correct / total.count),
                val_accuracy=float(val_metrics.correct / val_metrics.count),
                learning_rate=float(schedule(int(state.step) - 1)),
                seconds=time.perf_counter() - start,
            )
            progress.epoch(row, rate, mesh.size)
            state = state.replace(totals=devices.place(steps.Metrics.zero(), mesh))
            yield state, row


class Stopped(SystemExit):
    """A signal ended training: `state` is that after the last finished step. Exits with 128 + n."""

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
        self._step = compile_step("evaluation", step, progress, variables, next(batches.ordered()))

    def __call__(
        self, variables: PyTree, batches: Batches
    ) -> tuple[steps.Metrics, Float[np.ndarray, "N K"]]:
        """Sums over all pictures, and the logits of each in the order of the set."""
        total, logits = None, []
        for batch in batches.ordered():
            metrics, batch_logits = devices.local(self._step(variables, batch))
            total = metrics if total is None else total + metrics
            logits.append(batch_logits)
        return total, np.concatenate([np.asarray(part) for part in logits])[: batches.examples]


def compile_step(name: str, step: Any, progress: Progress, *arguments: PyTree) -> Any:
    """`step` compiled for the shapes of `arguments`, with a line that says how long it took."""
    start = time.perf_counter()
    keep_compiled()
    compiled = step.lower(*arguments).compile()
    progress.say(f"compiled the {name} step in {time.perf_counter() - start:.1f} s")
    return compiled


def _check_finite(
    step: int,
    metrics: steps.Metrics,
    grad_norm: Float[Array, ""],
    batch: Batch,
    train: Batches,
    schedule: optax.Schedule,
) -> None:
    loss = float(metrics.loss / metrics.count)
    if math.isfinite(loss) and math.isfinite(float(grad_norm)):
        return
    batch = devices.local(batch)
    index = np.asarray(batch.index)[np.asarray(batch.weight) > 0].tolist()
    raise DivergedError(
        f"diverged at step {step} (epoch {int(batch.epoch)}): loss {loss:.3g}, gradient norm "
        f"{float(grad_norm):.3g} at learning rate {float(schedule(step - 1)):.3g}; try a lower "
        f"--peak-lr. Pictures of that batch: {', '.join(train.name(i) for i in index)}"
    )
