"""Large pieces of work by turns, so that threads together take no more memory than one of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A semaphore with weights: what runs at the same time weighs at most `limit` together.

    One alone runs whatever it weighs.
    """

    def __init__(self, limit: int):
        self._limit, self._running = limit, 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, weight: int) -> Iterator[None]:
        """Waits until there is room for `weight`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._running == 0 or self._running + weight <= self._limit
            )
            self._running += weight
        try:
            yield
        finally:
            with self._changed:
                self._running -= weight
                self._changed.notify_all()
