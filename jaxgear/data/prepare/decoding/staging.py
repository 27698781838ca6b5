"""Decodes the images of a folder in worker processes, each with its own `Workshop`.

Neither JAX nor TFDS is imported here, so that processes start fast.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxgear.cluster import Cluster
from jaxgear.data.folder import Refused
from jaxgear.data.images.threads import in_order
from jaxgear.data.prepare.decoding.workshop import Staged, Workshop
from jaxgear.errors import DataError

_TASK = 64  # images in one task of a process
_CLUSTER_TASK = 256  # of a process on another machine


def stage(
    root: Path,
    paths: Sequence[str],
    place: Path,
    *,
    size: int | None,
    workers: int,
    known: Shaped[np.ndarray, " n"],
    cluster: Cluster | None = None,
) -> Iterator[str | Staged | Refused]:
    """`Workshop.stage` of all `paths`, in order, in `workers` processes (1: in this process).

    With a `cluster`, in the processes of its nodes.

    Raises:
        DataError: a process was killed.
    """
    images = _TASK if cluster is None else _CLUSTER_TASK
    tasks = [paths[start : start + images] for start in range(0, len(paths), images)]
    arguments = (root, place, size, known)
    if cluster is not None:
        for results in cluster.map(_work_on_node, tasks, *arguments):
            yield from results
    elif workers == 1 or len(tasks) <= 1:
        with Workshop(*arguments) as workshop:
            for task in tasks:
                yield from workshop.stage(task)
    else:
        yield from _parallel(tasks, min(workers, len(tasks)), arguments)


def _work_on_node(paths: Sequence[str], *arguments: Any) -> list[str | Staged | Refused]:
    """`Workshop.stage` in a process that has one workshop for all of its tasks."""
    place = arguments[:3]
    workshop = _workshops.get(place)
    if workshop is not None and not workshop.path.exists():  # its set is finished
        workshop.close()
        workshop = None
    if workshop is None:
        workshop = _workshops[place] = Workshop(*arguments)
    return workshop.stage(paths)


_workshop: Workshop
_workshops: dict[tuple, Workshop] = {}


def _parallel(
    tasks: list[Sequence[str]], workers: int, arguments: tuple
) -> Iterator[str | Staged | Refused]:
    with processes(workers, _open_workshop, *arguments) as pool:
        for results in in_order(pool, _work, tasks, 8 * workers):
            yield from results


def _open_workshop(*arguments) -> None:
    """Called once in each process."""
    global _workshop
    _workshop = Workshop(*arguments)


def _work(paths: Sequence[str]) -> list[str | Staged | Refused]:
    return _workshop.stage(paths)


@contextlib.contextmanager
def processes(
    workers: int, begin: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, each of which first calls `begin(*arguments)`.

    They end with this process.

    Raises:
        DataError: a process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _begin, (begin, arguments))
    try:
        yield pool
    except BrokenProcessPool:
        raise DataError(
            "a process was killed (out of memory?); start again with fewer --workers to continue "
            "(use 1 if Python reads its program from a pipe)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    """Ends this process when its parent is killed; nothing else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
