"""Defers SIGINT and SIGTERM until the current step ends, so that its state can be saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from jaxgear.notebook import in_notebook


class Signals:
    """`received` is the number of the first signal, or 0. In a notebook the second one raises."""

    received = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received and in_notebook():
            raise KeyboardInterrupt  # the kernel keeps what other cells have made
        if self.received:
            # A second signal ends the process at once. Files on disk are complete at any time.
            os._exit(128 + number)
        self.received = number


@contextlib.contextmanager
def deferred_signals() -> Iterator[Signals]:
    """Records the first signal instead of raising; a second signal ends the process at once.

    The code inside checks `received` and raises. If a signal came too late for that, leaving raises
    SystemExit(128 + number). Outside the main thread Python has no signals, so none is recorded.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        with contextlib.suppress(GeneratorExit):  # the consumer of the loop stopped iterating
            yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals.received:
        raise SystemExit(128 + signals.received)
