"""Progress of training: a bar on a terminal, otherwise one plain line per epoch."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jaxgear.training.history import Row
from jaxgear.training.state import Metrics

REFRESH = 0.25  # seconds between reads of the loss; each read waits for the device


class Progress:
    """Prints progress on stdout, or nothing if `quiet`. A context manager that removes its bar."""

    def __init__(self, epochs: int = 0, quiet: bool = False):
        self.epochs = epochs
        self.quiet = quiet
        self._explained = False
        self._bar = self._task = None
        self._since, self._seen, self._shown = time.perf_counter(), 0, 0.0

    def __enter__(self) -> "Progress":
        if self.epochs and not self.quiet and sys.stdout.isatty():
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
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
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
        if self._task is None:
            done = (epoch - 1) * steps
            self._task = self._bar.add_task("", total=self.epochs * steps, completed=done, rate="")
        now = time.perf_counter()
        self._seen += images
        if now - self._shown < REFRESH:
            return
        self._shown = now
        self._bar.update(
            self._task,
            completed=(epoch - 1) * steps + number,
            description=f"epoch {epoch}/{self.epochs}  "
            f"loss {float(totals.loss / totals.count):.3f}",
            rate=f"{self._seen / (now - self._since):.0f} images/s",
        )

    def epoch(self, row: Row, rate: float, devices: int) -> None:
        """Prints the row of an epoch; `rate` is in images per second of all `devices` together."""
        shared = f"  {rate:.0f} images/s, {rate / devices:.0f} per device" if devices > 1 else ""
        once = "" if self._explained else "  (train: as optimised, with augmentation and smoothing)"
        self._explained = True
        self.say(str(row) + shared + once)
        self._since, self._seen = time.perf_counter(), 0
