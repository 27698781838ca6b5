"""The task `epoch` of scripts/bench.py: whole epochs of experiments/scratch.py."""

import argparse
import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any


def epoch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Training pictures a second in epochs without and with backgrounds, in turn (A B A B ...)."""
    with contextlib.ExitStack() as stack:
        runs = []
        for backgrounds in ("", arguments.backgrounds):
            pictures, epochs = scratch_epochs(arguments, backgrounds)
            stack.enter_context(contextlib.closing(epochs))
            next(epochs)  # compiles, and warms up
            runs.append(epochs)
        seconds: list[list[float]] = [[], []]
        stop = time.perf_counter() + arguments.seconds
        while time.perf_counter() < stop or len(seconds[0]) < 3:
            for epochs, times in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                next(epochs)
                times.append(time.perf_counter() - start)
    plain, pasted = (statistics.median(times) for times in seconds)
    return {
        "images": pictures,
        "epochs": len(seconds[0]),
        "images_per_second": round(pictures / plain, 2),
        "backgrounds_images_per_second": round(pictures / pasted, 2),
        "backgrounds_cost": round(pasted / plain, 3),
    }


def scratch_epochs(arguments: argparse.Namespace, backgrounds: str) -> tuple[int, Iterator[Any]]:
    """The number of training pictures, and the epochs of the experiment's own loop.

    Each epoch validates on one batch only, because backgrounds double the validation split.
    """
    import numpy as np

    from experiments import scratch
    from jaxgear.data.batches import Batches
    from jaxgear.experiment import assembly
    from jaxgear.training.progress import Progress

    config = scratch.Config(
        data=arguments.data or "drawn",
        image_size=arguments.size,
        backgrounds=backgrounds,
        seed=arguments.seed,
    )
    with contextlib.redirect_stdout(sys.stderr):
        training = assembly.prepare(config, scratch.recipe)
    val, size = training.val, training.val.batch_size
    batch = Batches(*(np.asarray(rows[:size]) for rows in (val.images, val.labels)), size)
    training = dataclasses.replace(training, val=batch)
    epochs = training.epochs(training.state, last=sys.maxsize, progress=Progress(quiet=True))
    return training.train.examples, epochs
