"""Trains several runs as one compiled program, an epoch of each at a time.

A small network leaves most of an accelerator idle, so more of them at the same time cost little.
"""

import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence

import jax
import numpy as np

from jaxgear.data.batches import Batch, Chunk
from jaxgear.errors import DivergedError
from jaxgear.machine.signals import Signals
from jaxgear.training import loop
from jaxgear.training.compiled import Sent
from jaxgear.training.history import Row
from jaxgear.training.progress import Progress
from jaxgear.training.state import Metrics, TrainState
from jaxgear.training.vectorized.lane import Lane
from jaxgear.training.vectorized.program import Program


class Rounds:
    """Epochs of several lanes. A round trains the next epoch of each lane that wants one."""

    def __init__(self, lanes: Sequence[Lane], signals: Signals, progress: Progress):
        """Compiles the programs; `grouped` says which lanes can be together.

        Raises:
            DifferError: the steps of the lanes differ in more than numbers.
        """
        self._lanes, self._signals, self._progress = lanes, signals, progress
        self._program = Program(lanes, progress)
        self._next = [lane.first for lane in lanes]  # epoch
        self._closed = [False] * len(lanes)
        self._schedules = [jax.jit(lane.schedule) for lane in lanes]
        # What lanes have not taken yet.
        self._results: list[deque] = [deque() for _ in lanes]

    def epochs(self, number: int) -> Generator[tuple[TrainState, Row]]:
        """What `loop.epochs` yields for lane `number`; others wait for their own `epochs`.

        A row's seconds are the lane's share of the time of all.

        Raises:
            DivergedError: this lane diverged; the others go on.
            Stopped: as `loop.epochs`.
        """
        results, last = self._results[number], self._lanes[number].last
        try:
            while results or self._next[number] <= last:
                while not results:
                    self._round()
                result = results.popleft()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._closed[number] = True

    def _round(self) -> None:
        start, program = time.perf_counter(), self._program
        states = dict(enumerate(program.states()))
        waiting = [i for i in states
                   if not self._closed[i] and self._next[i] <= self._lanes[i].last]  # fmt: skip
        # Lanes with images of another size wait for a round of their own.
        scales = {i: self._lanes[i].scale(self._next[i]) for i in waiting}
        scale = min(scales.values())
        active = {i: states[i] for i in waiting if scales[i] == scale}
        inputs = [self._inputs(i, active[i]) if i in active else iter(()) for i in states]
        done = {i: int(state.step) for i, state in active.items()}
        previous = None
        for examples in itertools.zip_longest(*inputs):
            if self._signals.received:
                break
            examples = [None if self._closed[i] else x for i, x in enumerate(examples)]
            sums = program.train(examples, scale)
            # Check the previous steps, so that the device works on these meanwhile.
            if previous is not None:
                self._check(*previous, done)
            previous = examples, sums
        if previous is not None:
            self._check(*previous, done)
        states = program.states()
        active = [i for i in active if not self._closed[i]]
        if self._signals.received:
            for i in active:
                self._results[i].append(loop.Stopped(states[i], self._signals.received))
            return
        val = self._evaluated(scale)
        seconds = (time.perf_counter() - start) / max(1, len(active))
        program.begin_epoch()
        reset = program.states()
        for i in active:
            metrics = jax.tree.map(lambda rows, i=i: rows[i], val)
            lane = self._lanes[i]
            size = loop.side(lane.train, scale) if lane.scales else None
            row = loop.row_of(
                *(self._next[i], states[i], metrics, self._schedules[i], seconds), size=size
            )
            self._progress.say(f"{lane.name}: {row}")
            self._results[i].append((reset[i], row))
            self._next[i] += 1

    def _inputs(self, number: int, state: TrainState) -> Iterator[Batch | Chunk]:
        """The batches or chunks that are left of the lane's epoch."""
        train, epoch = self._lanes[number].train, self._next[number]
        begun = -(-int(state.totals.count) // train.batch_size)
        if self._program.steps > 1:
            return train.chunks(epoch, begun, self._program.steps)
        return train.shuffled(epoch, begun)

    def _check(
        self,
        inputs: Sequence[Batch | Chunk | None],
        sums: tuple[Metrics, jax.Array],
        done: dict[int, int],
    ) -> None:
        """Closes the lanes that diverged."""
        metrics, norms = jax.device_get(sums)
        for i, examples in enumerate(inputs):
            if examples is None or self._closed[i]:
                continue
            lane, count = self._lanes[i], int(getattr(examples, "count", 1))
            rows = jax.tree.map(lambda row, i=i: row[i], metrics)
            sent = Sent(lane.state, done[i] + 1, count, rows, norms[i], examples)
            done[i] += count
            try:
                loop.check_finite(sent, lane.train, self._schedules[i])
            except DivergedError as error:
                self._results[i].append(error)
                self._closed[i] = True

    def _evaluated(self, scale: float) -> Metrics:
        """Sums over the validation splits, [L]."""
        batches = itertools.zip_longest(*(lane.val.ordered() for lane in self._lanes))
        sums = [self._program.evaluate(of_lanes, scale) for of_lanes in batches]
        return jax.tree.map(lambda *rows: np.sum(rows, axis=0), *jax.device_get(sums))
