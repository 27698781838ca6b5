"""Progress of training: a bar on a terminal or in a notebook, else one plain line per epoch."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jaxgear import notebook
from jaxgear.training.history import Row
from jaxgear.training.state import Metrics

REFRESH = 0.25  # seconds between reads of the loss; each read waits for the device


class Progress:
    """Prints progress on stdout, or nothing if `quiet`. A context manager that removes its bar.

    In a notebook the bar stays, with the figures of the last epoch, and replaces the lines of the
    epochs.
    """

    def __init__(self, epochs: int = 0, quiet: bool = False):
        self.epochs = epochs
        self.quiet = quiet
        self._explained = False
        self._bar: _Terminal | _Notebook | None = None
        self._steps = 0  # of an epoch
        self._since, self._seen, self._shown = time.perf_counter(), 0, 0.0

    def __enter__(self) -> "Progress":
        if self.epochs and not self.quiet:
            if notebook.in_notebook():
                self._bar = _Notebook()
            elif sys.stdout.isatty():
                self._bar = _Terminal()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.print(line)
        elif not self.quiet:
            print(line, flush=True)

    def step(self, epoch: int, number: int, steps: int, totals: Metrics, images: int) -> None:
        """Moves the bar: the device has been sent `number` of the `steps` steps of an epoch.

        Args:
            totals: sums over the epoch so far.
            images: number of images since the last call.
        """
        if self._bar is None:
            return
        self._steps = steps
        now = time.perf_counter()
        self._seen += images
        if now - self._shown < REFRESH:
            return
        self._shown = now
        self._bar.move(
            (epoch - 1) * steps + number,
            self.epochs * steps,
            f"epoch {epoch}/{self.epochs}  loss {float(totals.loss / totals.count):.3f}",
            f"{self._seen / (now - self._since):.0f} images/s",
        )

    def epoch(self, row: Row, rate: float, devices: int) -> None:
        """Shows the row of an epoch; `rate` is in images per second of all `devices` together."""
        shared = f"  {rate:.0f} images/s, {rate / devices:.0f} per device" if devices > 1 else ""
        self._since, self._seen = time.perf_counter(), 0
        if isinstance(self._bar, _Notebook) and self._steps:
            self._bar.move(row.epoch * self._steps, self.epochs * self._steps, str(row), shared)
            return
        once = "" if self._explained else "  (train: as optimised, with augmentation and smoothing)"
        self._explained = True
        self.say(str(row) + shared + once)


class _Terminal:
    """A bar of rich below the printed lines."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(),
            transient=True,
        )
        self._bar.start()
        self._task = None

    def move(self, done: int, total: int, text: str, rate: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=total, completed=done, rate="")
        self._bar.update(self._task, completed=done, description=text, rate=rate)

    def print(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self._bar.stop()


class _Notebook:
    """The one bar of a notebook; lines are printed as ever."""

    def __init__(self) -> None:
        self._bar = notebook.Bar()

    def move(self, done: int, total: int, text: str, rate: str) -> None:
        self._bar.move(done, total, f"{text}  {rate}", now=True)

    def print(self, line: str) -> None:
        print(line, flush=True)

    def stop(self) -> None:
        """The bar stays, with what it showed last."""
