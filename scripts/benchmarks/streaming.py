"""Tasks of scripts/scale.py that train: pictures that stream, against pictures in memory."""

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
STEPS = 12  # at a time


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second of both in turn, in one process: the same step, `STEPS` at a time.

    Streamed pictures are decoded each time: their cache is empty.
    """
    rates: dict[str, list[float]] = {"stream": [], "memory": []}
    with tempfile.TemporaryDirectory() as scratch:
        made = {}
        for kind in rates:
            os.environ["JAXGEAR_CACHE"] = f"{scratch}/{kind}"
            made[kind] = prepared(arguments.folder, kind, arguments.size, arguments.backgrounds)
        step = compiled(made["memory"])
        state = made["memory"].state
        batches = {kind: endless(one.train) for kind, one in made.items()}
        stop = time.perf_counter() + arguments.seconds
        while time.perf_counter() < stop or len(rates["memory"]) < 4:
            for kind, of in batches.items():
                start = time.perf_counter()
                state = some_steps(step, state, of)
                images = STEPS * made[kind].train.batch_size
                rates[kind].append(images / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["stream"][1:], rates["memory"][1:], strict=True)]
    return {
        "pictures": made["memory"].train.examples,
        "rounds": len(ratios),  # without the first, which fills queues
        "images_per_second": round(statistics.median(rates["stream"][1:]), 1),
        "memory_images_per_second": round(statistics.median(rates["memory"][1:]), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of a process that trains so, and seconds until it can; each of its own.

    In memory twice: on the set, and on 240 drawn pictures, which is what the model costs.
    """
    found: dict[str, Any] = {}
    sources = {"stream": f"tfds:gear@{arguments.folder}", "model": "drawn:240"}
    for kind, source in sources.items():
        words = [source, kind, arguments.size, arguments.backgrounds]
        command = [sys.executable, "-m", "scripts.benchmarks.streaming", *map(str, words)]
        for _ in range(2):  # compiling takes memory too, once
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        one = json.loads(done.stdout.splitlines()[-1])
        found |= {f"{kind}_{name}": value for name, value in one.items()}
    return found | {"above_model_mib": round(found["stream_mib"] - found["model_mib"], 1)}


def prepared(source: str | Path, kind: str, size: int, backgrounds: str) -> Any:
    """What experiments/scratch.py makes of a prepared set: a `stream`, or else in memory."""
    from experiments import scratch
    from jaxgear.experiment import assembly

    source = source if isinstance(source, str) else f"tfds:gear@{source}"
    config = scratch.Config(
        data=source, image_size=size, stream=kind == "stream", backgrounds=backgrounds
    )
    with contextlib.redirect_stdout(sys.stderr):
        return assembly.prepare(config, scratch.recipe)


def compiled(made: Any) -> Any:
    """The experiment's training step."""
    import jax

    from jaxgear.training import steps

    return jax.jit(functools.partial(steps.train_step, **made.step_options), donate_argnums=0)


def endless(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        epoch += 1
        yield from batches.shuffled(epoch)


def some_steps(step: Any, state: Any, batches: Iterator[Any]) -> Any:
    """As training/loop.py: the host looks at the loss one step behind."""
    previous = None
    for _ in range(STEPS):
        state, metrics, _ = step(state, next(batches))
        if previous is not None:
            float(previous)
        previous = metrics.loss
    float(previous)
    return state


def main(source: str, kind: str, size: str, backgrounds: str) -> None:
    """Trains for a moment, and prints what that took as JSON."""
    begin = time.perf_counter()
    made = prepared(source, kind, int(size), backgrounds)
    opened = time.perf_counter() - begin
    step, batches = compiled(made), endless(made.train)
    state = some_steps(step, made.state, batches)
    start = time.perf_counter()
    some_steps(step, state, batches)
    images = STEPS * made.train.batch_size
    rate = images / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"mib": peak, "open_seconds": opened, "images_per_second": rate}
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
