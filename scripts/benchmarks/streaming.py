"""Tasks of scripts/scale.py that train: a streamed set against the same set in memory."""

import argparse
import contextlib
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STEPS = 12  # timed together


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second, streamed and in memory in turn: one process, one step, `STEPS` at a time.

    The cache is empty, so streamed pictures are decoded each time.
    """
    rates: dict[str, list[float]] = {"stream": [], "memory": []}
    with tempfile.TemporaryDirectory() as scratch:
        trainings = {}
        for mode in rates:
            os.environ["JAXGEAR_CACHE"] = f"{scratch}/{mode}"
            options = (arguments.size, arguments.backgrounds)
            trainings[mode] = prepared(arguments.folder, mode, *options)
        step = compiled(trainings["memory"])
        state = trainings["memory"].state
        batches = {mode: endless(training.train) for mode, training in trainings.items()}
        stop = time.perf_counter() + arguments.seconds
        while time.perf_counter() < stop or len(rates["memory"]) < 4:
            for mode, source in batches.items():
                start = time.perf_counter()
                state = some_steps(step, state, source)
                images = STEPS * trainings[mode].train.batch_size
                rates[mode].append(images / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["stream"][1:], rates["memory"][1:], strict=True)]
    return {
        "pictures": trainings["memory"].train.examples,
        "rounds": len(ratios),  # without the first, which fills queues
        "images_per_second": round(statistics.median(rates["stream"][1:]), 1),
        "memory_images_per_second": round(statistics.median(rates["memory"][1:]), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of a process that trains, and seconds until its data is open.

    One process streams the set. Another trains on 240 drawn pictures in memory, which gives the
    memory of the model alone.
    """
    figures: dict[str, Any] = {}
    sources = {"stream": f"tfds:gear@{arguments.folder}", "model": "drawn:240"}
    for mode, source in sources.items():
        words = [source, mode, arguments.size, arguments.backgrounds]
        command = [sys.executable, "-m", "scripts.benchmarks.streaming", *map(str, words)]
        for _ in range(2):  # the first compiles, which takes memory too
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        printed = json.loads(done.stdout.splitlines()[-1])
        figures |= {f"{mode}_{name}": value for name, value in printed.items()}
    return figures | {"above_model_mib": round(figures["stream_mib"] - figures["model_mib"], 1)}


def prepared(source: str | Path, mode: str, size: int, backgrounds: str) -> Any:
    """The `Training` of experiments/scratch.py on a prepared set; mode "stream" streams it."""
    from experiments import scratch
    from jaxgear.experiment import assembly

    source = source if isinstance(source, str) else f"tfds:gear@{source}"
    config = scratch.Config(
        data=source, image_size=size, stream=mode == "stream", backgrounds=backgrounds
    )
    with contextlib.redirect_stdout(sys.stderr):
        return assembly.prepare(config, scratch.recipe)


def compiled(training: Any) -> Any:
    """The experiment's training step."""
    import jax

    from jaxgear.training import steps

    return jax.jit(functools.partial(steps.train_step, **training.step_options), donate_argnums=0)


def endless(batches: Any) -> Iterator[Any]:
    """Batches of epoch 1, 2, ... without end."""
    epoch = 0
    while True:
        epoch += 1
        yield from batches.shuffled(epoch)


def some_steps(step: Any, state: Any, batches: Iterator[Any]) -> Any:
    """Trains `STEPS` steps. As in training/loop.py, the host reads the loss one step late."""
    previous = None
    for _ in range(STEPS):
        state, metrics, _ = step(state, next(batches))
        if previous is not None:
            float(previous)
        previous = metrics.loss
    float(previous)
    return state


def main(source: str, mode: str, size: str, backgrounds: str) -> None:
    """Trains twice `STEPS` steps, and prints memory, seconds and rate as JSON."""
    begin = time.perf_counter()
    training = prepared(source, mode, int(size), backgrounds)
    opened = time.perf_counter() - begin
    step, batches = compiled(training), endless(training.train)
    state = some_steps(step, training.state, batches)
    start = time.perf_counter()
    some_steps(step, state, batches)
    images = STEPS * training.train.batch_size
    rate = images / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"mib": peak, "open_seconds": opened, "images_per_second": rate}
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
