"""Prepare a folder as a TensorFlow Datasets set, checked and split; repeat it to add pictures."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxgear.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear prepare`."""
    parser.add_argument("folder", help="folder, table, archive or address")
    parser.add_argument(
        "out",
        type=Path,
        help="where to write it. Train on it with --data tfds:gear@OUT, which takes the newest "
        "OUT/gear/<version>; remove older ones when no run reads them",
    )
    parser.add_argument(
        "--size", type=int, help="store pictures letterboxed at this many pixels, for --image-size"
    )
    parser.add_argument("--workers", type=int, help="processes that decode (one for each core)")
    parser.add_argument("--seed", type=int, default=0, help="decides the split")
    parser.add_argument(
        "--group-by",
        default="near-duplicates",
        help="what stays in one split: near-duplicates, file, folder or a pattern in names",
    )
    parser.add_argument("--on-bad", choices=["stop", "skip"], default="stop")


def run(arguments: argparse.Namespace) -> None:
    """Writes the set. Its splits are the ones of a run with the same seed."""
    for flag in ("size", "workers"):
        value = getattr(arguments, flag)
        if value is not None and not 1 <= value <= 4096:
            raise UsageError(f"--{flag} {value}: must be from 1 to 4096")
    from jaxgear.data.prepare.prepared import prepare

    with _bar() as tick:
        prepare(
            arguments.folder,
            arguments.out,
            size=arguments.size,
            workers=arguments.workers,
            seed=arguments.seed,
            on_bad=arguments.on_bad,
            group_by=arguments.group_by,
            tick=tick,
        )
    print(f"train on it with --data tfds:gear@{arguments.out}")


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while pictures are decoded, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task("decoding")
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
