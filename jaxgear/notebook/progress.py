"""A progress bar in a notebook, or on stderr if that is a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from jaxgear.notebook.live import Bar, in_notebook

Item = TypeVar("Item")
Move = Callable[[int, int, str], None]  # gets what is done, how much there is, and a description

DELAY = 1.0  # seconds; work that is done by then shows no bar


def counted(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yields the items; a bar shows how many of `total` there were."""
    with bar(description) as tick:
        for number, item in enumerate(items, 1):
            tick(number, total)
            yield item


@contextlib.contextmanager
def bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of the number of things that are done, and of all things."""
    begun, move = time.monotonic(), None
    with contextlib.ExitStack() as stack:

        def tick(done: int, total: int) -> None:
            nonlocal move
            if move is None and time.monotonic() - begun >= DELAY:
                move = Bar().move if in_notebook() else _terminal_bar(stack)
            if move is not None:
                move(done, total, description)

        yield tick


def _terminal_bar(stack: contextlib.ExitStack) -> Move:
    """A function that moves a bar. The bar goes when all is done, or `stack` is left."""
    if not sys.stderr.isatty():
        return lambda done, total, text: None
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    stack.callback(progress.stop)
    task, shown = progress.add_task(""), 0.0

    def move(done: int, total: int, text: str) -> None:
        nonlocal shown
        if done == total:
            progress.stop()  # later lines are printed below the bar
        elif (now := time.monotonic()) - shown > 0.1:
            progress.update(task, completed=done, total=total, description=text)
            progress.start()
            shown = now

    return move
