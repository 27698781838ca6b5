"""Compares the phases of a training step with the limits of the machine: a Markdown table.

    python -m scripts.roofline --data FOLDER

The columns for each network and phase:

- GFLOP and MB as XLA counts them, for programs with plain convolutions and with unrolled loops,
  because XLA counts the body of a loop once.
- floor: the larger of FLOPs / measured peak of a matrix product and bytes / measured bandwidth of
  memory.
- measured: the fastest of several calls, because other work on a shared machine only adds time.
- times the floor: measured / floor.

Backward is the gradient less the forward pass. Host and rest is the whole step, with the gather of
its pictures, less the phases before. Decoding happens once a run, or for each batch of a set that
does not fit in memory. XLA counts the bytes between fused loops, even those that the cache serves.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import reference, scratch
from jaxgear.data.batches import Batches
from jaxgear.data.folder import pixels
from jaxgear.data.sources import read_source
from jaxgear.experiment import Data
from jaxgear.models.cpu import convolution
from jaxgear.models.finetune import FineTuned, Head
from jaxgear.models.pretrained import ResNet, imagenet
from jaxgear.training import steps

SIDE, CLASSES = 128, 12


@dataclasses.dataclass(frozen=True)
class Work:
    """A network in training."""

    name: str
    state: steps.TrainState
    batch: int
    options: dict[str, Any]  # of `steps.train_step`


def networks(seed: int = 0) -> list[Work]:
    """The reference and default CNNs as their experiments train them, and a whole ResNet-50."""
    works, images = [], np.zeros((1, SIDE, SIDE, 3), np.uint8)
    for name, module in (("reference CNN", reference), ("default CNN", scratch)):
        config = module.Config(image_size=SIDE)
        recipe = module.recipe(config, Data((100,) * CLASSES, config.batch_size))
        state = steps.init_state(recipe.model, recipe.tx, images, seed)
        options = {"classes": CLASSES, "loss": recipe.loss, "augment": recipe.augment}
        options["per_example"] = recipe.per_example
        works.append(Work(name, state, config.batch_size, options))
    pre = imagenet()
    resnet = FineTuned(ResNet(50), Head(CLASSES), pre.order, pre.scale, pre.mean, pre.std, 0)
    state = steps.init_state(resnet, optax.adamw(1e-4), images, seed)
    options = {"classes": CLASSES, "loss": steps.smoothed_cross_entropy(0.0)}
    return [*works, Work("ResNet-50", state, 16, options)]


def phases(work: Work, batches: Batches) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Phase -> a pure function and its arguments; `gradient` includes the forward pass."""
    batch, state = next(batches.shuffled(1)), work.state
    keys = jax.random.split(jax.random.key(0), work.batch)
    images = batch.image.astype(jnp.float32)
    targets = jax.nn.one_hot(batch.label, work.options["classes"])

    def forward(params: Any, images: Any) -> Any:
        logits, changed = state.apply(
            {"params": params, **state.model_state},
            images,
            train=True,
            mutable=list(state.model_state),
            rngs={"dropout": state.key},
        )
        return work.options["loss"](logits, targets).mean(), changed

    def optimizer(grads: Any, opt_state: Any, params: Any) -> Any:
        updates, opt_state = state.tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    calls: dict[str, Any] = {}
    if augment := work.options.get("augment"):
        calls["augment"] = (lambda keys, images: augment(keys, images), (keys, images))
    calls["forward"] = (forward, (state.params, images))
    calls["gradient"] = (jax.value_and_grad(forward, has_aux=True), (state.params, images))
    # Parameters in place of gradients: the time does not depend on the values, if not zero.
    calls["optimizer"] = (optimizer, (state.params, state.opt_state, state.params))
    return calls


def counted(function: Callable[..., Any], arguments: tuple[Any, ...]) -> np.ndarray:
    """FLOPs and bytes of a program, as XLA counts them."""

    def unrolled(first: int, last: int, body: Callable[..., Any], value: Any, **_: Any) -> Any:
        for step in range(first, last):
            value = body(step, value)
        return value

    plain = jax.lax.conv_general_dilated
    with (
        mock.patch.object(convolution, "conv_general_dilated", plain),
        mock.patch.object(jax.lax, "fori_loop", unrolled),
    ):
        # A new function, because JAX may have cached the program of the old one.
        program = jax.jit(lambda *values: function(*values)).lower(*arguments).compile()
    costs = program.cost_analysis()
    return np.array([costs.get("flops", 0.0), costs["bytes accessed"]])  # a copy has no FLOPs


def fastest(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest call of each function. All are called in turn, `rounds` times, so that
    they share the calm moments of a machine.
    """
    seconds = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number > 1:  # the first two compile and warm up
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def machine() -> dict[str, Callable[[], Any]]:
    """Probes of the machine: a float32 product of 2,048 x 2,048, and `a + b / 2` of 256 MB."""
    key = jax.random.key(0)
    square = jax.random.normal(key, (2048, 2048))
    product = jax.jit(lambda a: a @ a)
    a, b = (jax.random.normal(key, (1 << 26,)) for _ in range(2))
    triad = jax.jit(lambda a, b: a + 0.5 * b, donate_argnums=0)  # writes into `a`: no new pages

    def stream() -> jax.Array:
        nonlocal a
        a = triad(a, b)
        return a

    return {"product": lambda: product(square), "stream": stream}


@dataclasses.dataclass(frozen=True)
class Row:
    """A phase of a network's step, for a batch."""

    title: str
    phase: str
    seconds: float
    flops: float | None = None
    bytes: float | None = None


def measure(
    work: Work, images: np.ndarray, labels: np.ndarray, rounds: int
) -> tuple[list[Row], dict[str, float]]:
    """The rows of a network, and the seconds of all calls, those of `machine` among them."""
    batches = Batches(images, labels, work.batch)
    parts = phases(work, batches)
    train_step = jax.jit(functools.partial(steps.train_step, **work.options), donate_argnums=0)
    state = jax.tree.map(jnp.copy, work.state)  # the step donates it
    ahead = itertools.chain.from_iterable(map(batches.shuffled, itertools.count(1)))

    def whole() -> jax.Array:
        nonlocal state
        state, metrics, _ = train_step(state, next(ahead))
        return metrics.loss

    calls = {name: functools.partial(jax.jit(f), *inputs) for name, (f, inputs) in parts.items()}
    times = fastest(calls | {"whole step": whole} | machine(), rounds)
    costs = {name: counted(*part) for name, part in parts.items()}
    costs["backward"] = costs.pop("gradient") - costs["forward"]
    times["backward"] = times.pop("gradient") - times["forward"]
    order = [name for name in ("augment", "forward", "backward", "optimizer") if name in costs]
    times["host and rest"] = times["whole step"] - sum(times[name] for name in order)
    title = f"{work.name}, {work.batch} x {SIDE} px"
    rows = [Row(title, name, times[name], *costs[name]) for name in order]
    rows += [Row(title, name, times[name]) for name in ("host and rest", "whole step")]
    return rows, times


def table(rows: list[Row], peak: float, bandwidth: float) -> str:
    """Markdown; `peak` in FLOP/s, `bandwidth` in bytes/s."""
    lines = [
        f"Matrix product {peak / 1e9:.0f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s.",
        "",
        "| network | phase | GFLOP | MB | floor, ms | measured, ms | times the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts, gap = ["", "", ""], ""
        if row.flops is not None:
            bounds = {"FLOPs": row.flops / peak, "bytes": row.bytes / bandwidth}
            bound = max(bounds, key=bounds.get)
            floor = bounds[bound]
            counts = [f"{row.flops / 1e9:.2f}", f"{row.bytes / 1e6:.0f}"]
            counts.append(f"{1000 * floor:.1f} ({bound})")
            gap = f"{row.seconds / floor:.1f}"
        cells = [row.title, row.phase, *counts, f"{1000 * row.seconds:.1f}", gap]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="drawn:120", help="pictures of 12 classes")
    parser.add_argument("--rounds", type=int, default=10, help="calls of each phase")
    arguments = parser.parse_args()
    folder = read_source(arguments.data, SIDE)
    # In an empty cache, as reading has put the images into the user's.
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, JAXGEAR_CACHE=cache):
        start = time.perf_counter()
        images = pixels(folder, SIDE)
        decode = (time.perf_counter() - start) / len(images)
    labels = np.array([record.label for record in folder.records], np.int32)
    rows, best = [], {"product": float("inf"), "stream": float("inf")}
    for work in networks():
        own, times = measure(work, images, labels, arguments.rounds)
        rows += [Row(own[0].title, "decode", decode * work.batch), *own]
        best = {name: min(value, times[name]) for name, value in best.items()}
    print(table(rows, 2 * 2048**3 / best["product"], 3 * 4 * (1 << 26) / best["stream"]))


if __name__ == "__main__":
    main()
