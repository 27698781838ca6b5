"""Measures how a training step of the default CNN slows as work grows: a table and a plot.

    python -m scripts.growth --csv results/growth.csv --plot results/growth.png

Varies the batch, the size of pictures, their number in memory, and the depth (residual blocks a
stage), one at a time. Pictures are noise. Each point runs in its own process, which reports its
peak memory. The time of a point is its fastest step in `--rounds` processes, because other work on
a shared machine only adds time. Network, optimizer and augmentation are those of
experiments/scratch.py.
"""

import argparse
import csv
import functools
import io
import itertools
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from jaxgear.cli import exit_with
from jaxgear.outputs import outputs
from jaxgear.paths import path_argument

DEFAULT = {"batch": 48, "side": 128, "pictures": 1000, "depth": 1}
VARIED = {
    "batch": (8, 16, 32, 48, 64, 96),
    "side": (32, 64, 96, 128, 160, 192),
    "pictures": (1000, 3000, 10_000, 30_000),
    "depth": (0, 1, 2, 3, 4),
}
AXES = {
    "batch": "images a step",
    "side": "side of the images, px",
    "pictures": "images in memory",
    "depth": "residual blocks a stage",
}


def measure(batch: int, side: int, pictures: int, depth: int, seconds: float) -> dict[str, Any]:
    """Time of the fastest step, with the gather of its pictures, and the memory of this process."""
    import jax  # here, so that the parent process does not load it

    from experiments import scratch
    from jaxgear.data.batches import Batches
    from jaxgear.experiment import Data
    from jaxgear.machine.compile_cache import keep_compiled
    from jaxgear.models.convnet import Residual
    from jaxgear.training import steps

    keep_compiled()
    classes = 12
    recipe = scratch.recipe(
        scratch.Config(), Data(counts=(pictures // classes + 1,) * classes, batch_size=batch)
    )
    layers = [
        layer.clone()
        for layer in recipe.model.layers
        for _ in range(depth if isinstance(layer, Residual) else 1)
    ]
    model = recipe.model.clone(layers=layers)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (pictures, side, side, 3), np.uint8)
    batches = Batches(noise, rng.integers(0, classes, pictures), batch)
    state = steps.init_state(model, recipe.tx, batches.images[:1], 0)
    options = {"classes": classes, "loss": recipe.loss, "augment": recipe.augment}
    step = jax.jit(functools.partial(steps.train_step, **options), donate_argnums=0)
    ahead = itertools.chain.from_iterable(map(batches.shuffled, itertools.count(1)))
    state, metrics, _ = jax.block_until_ready(step(state, next(ahead)))  # compiles
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 5:
        start = time.perf_counter()
        state, metrics, _ = step(state, next(ahead))
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    step_ms = 1000 * min(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"step_ms": step_ms, "image_ms": step_ms / batch, "peak_gb": peak}


def fit(name: str, rows: list[dict[str, Any]]) -> tuple[np.ndarray, str]:
    """Step times in ms fitted as a + b n by least squares of relative errors, and the formula."""
    n = np.array([row[name] for row in rows], float)
    n, unit = {
        "side": (n**2 / 1000, "1,000 px"),
        "pictures": (n / 1000, "1,000 images"),
        "batch": (n, "image"),
        "depth": (n, "block"),
    }[name]
    times = np.array([row["step_ms"] for row in rows])
    b, a = np.polyfit(n, times, 1, w=1 / times)
    return a + b * n, f"a step: {a:.0f} ms + {b:.3g} ms/{unit}"


def main() -> None:
    """Measures every point in turn, then writes the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="duration of each point")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--csv", type=path_argument, required=True)
    parser.add_argument("--plot", type=path_argument, required=True)
    arguments = parser.parse_args()
    with outputs({"--csv": arguments.csv, "--plot": arguments.plot}) as files:
        rows = measure_all(arguments.rounds, arguments.seconds)
        files["--csv"].write(to_csv(rows))
        files["--plot"].write(draw(rows))


def measure_all(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each point, from the fastest of its `rounds`."""
    rows = [
        {"varied": name, **DEFAULT, name: value}
        for name, values in VARIED.items()
        for value in values
    ]
    spawn = multiprocessing.get_context("spawn")
    for row in rows * rounds:
        with ProcessPoolExecutor(1, spawn) as pool:  # a new process for each point
            point = {name: row[name] for name in DEFAULT}
            measured = pool.submit(measure, **point, seconds=seconds).result()
        if measured["step_ms"] < row.get("step_ms", float("inf")):
            row |= measured
        print(row, flush=True)
    return rows


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def draw(rows: list[dict[str, Any]]) -> bytes:
    """The plot of the rows, as PNG."""
    from jaxgear.evaluation.plots import figures as plots
    from scripts.benchmarks import plot_growth

    panels = []
    for name in VARIED:
        own = [row for row in rows if row["varied"] == name]
        times, formula = fit(name, own)
        panels.append(
            plot_growth.Panel(
                name=AXES[name],
                values=[row[name] for row in own],
                measured=[row["image_ms"] for row in own],
                fitted=[float(t / row["batch"]) for t, row in zip(times, own, strict=True)],
                fit=formula,
                memory=[row["peak_gb"] for row in own],
                logarithmic=name == "pictures",
            )
        )
    return plots.png(plot_growth.growth(panels))


if __name__ == "__main__":
    exit_with(main)
