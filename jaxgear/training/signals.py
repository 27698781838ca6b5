"""SIGINT and SIGTERM that wait for the step under way, so that its state can be saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signals:
    """`received` is the number of the signal that came, or 0."""

    received = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            # The second time: at once. What is on disk is whole at every moment.
            os._exit(128 + number)
        self.received = number


@contextlib.contextmanager
def deferred_signals() -> Iterator[Signals]:
    """Notes the first signal instead of raising; a second one ends the process at once.

    Whoever is inside looks at `received` and raises. If it came too late for that, leaving raises
    SystemExit(128 + number). Outside of the main thread, where Python has no signals, nothing is
    noted.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        with contextlib.suppress(GeneratorExit):  # whoever was iterating has had enough
            yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals.received:
        raise SystemExit(128 + signals.received)
