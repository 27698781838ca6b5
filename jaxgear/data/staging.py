"""Decodes the pictures of a folder on many processes, each in a `Workshop` of its own.

Neither JAX nor TFDS is imported here, so that a process starts soon.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path

from jaxgear.data.walk import Refused
from jaxgear.data.workshop import Staged, Workshop
from jaxgear.errors import DataError

_TASK = 32  # pictures that a process is given at a time


def stage(
    root: Path,
    paths: Sequence[str],
    place: Path,
    *,
    size: int | None,
    workers: int,
    known: frozenset[bytes],
) -> Iterator[str | Staged | Refused]:
    """`Workshop.stage` of all `paths`, in their order, on `workers` processes (1: on this one).

    Raises:
        DataError: a process was killed.
    """
    tasks = [paths[start : start + _TASK] for start in range(0, len(paths), _TASK)]
    arguments = (root, place, size, known)
    if workers == 1 or len(tasks) == 1:
        with Workshop(*arguments) as workshop:
            for task in tasks:
                yield from workshop.stage(task)
    else:
        yield from _parallel(tasks, min(workers, len(tasks)), arguments)


_workshop: Workshop


def _parallel(
    tasks: list[Sequence[str]], workers: int, arguments: tuple
) -> Iterator[str | Staged | Refused]:
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=arguments
    )
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_work, task))
            if len(waiting) > 8 * workers:  # enough ahead that none is idle
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes was killed (out of memory?); start again to go on, with fewer "
            "--workers (1 where Python reads its program from a pipe)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(*arguments) -> None:
    """Called once in each process."""
    global _workshop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _workshop = Workshop(*arguments)


def _work(paths: Sequence[str]) -> list[str | Staged | Refused]:
    return _workshop.stage(paths)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is killed, which nothing else tells it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
