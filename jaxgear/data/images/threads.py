"""For workers that decode: results in order, quiet warnings, and turns for large images."""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yields `function(item)` of each item; `ahead` of them are under way, so all stay busy."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_lock = threading.Lock()
_inside = 0
_saved: warnings.catch_warnings | None = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignores warnings from Pillow's modules while any thread is inside.

    Pillow warns of harmless oddities (damaged EXIF, unknown TIFF tags) in files that it then
    decodes well; real faults raise. `warnings.catch_warnings` alone is not enough: filters belong
    to the process, so overlapping threads would restore each other's. Here the first thread in
    saves the filters and the last thread out restores them.
    """
    global _inside, _saved
    with _lock:
        if _inside == 0:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _saved.__exit__(None, None, None)
                _saved = None


class Turns:
    """A weighted semaphore: concurrent turns weigh at most `limit` in total.

    A single turn may exceed the limit if it runs alone.
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
