"""A progress bar in a notebook, or on stderr if that is a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from jaxgear.notebook.live import Bar, in_notebook


@contextlib.contextmanager
def bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of the number of things that are done, and of all things."""
    if in_notebook():
        notebook = Bar()
        yield lambda done, total: notebook.move(done, total, description)
        return
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task(description)
    shown = 0.0

    def tick(done: int, total: int) -> None:
        nonlocal shown
        if done == total:
            progress.stop()  # later lines are printed below the bar
        elif (now := time.monotonic()) - shown > 0.1:
            progress.start()
            progress.update(task, completed=done, total=total)
            shown = now

    try:
        yield tick
    finally:
        progress.stop()
