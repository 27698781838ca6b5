"""Where the time of a training step goes, beside what the machine could do: a Markdown table.

    python -m scripts.roofline --data FOLDER

For each network and phase: FLOPs and bytes as XLA counts them (of programs with plain convolutions
and unrolled loops, as it counts the body of a loop once), the floor that the larger of FLOPs by the
measured peak of a matrix product and bytes by the measured bandwidth of memory makes, the time of
the fastest of calls in turn (what others do on a shared machine only adds), and how many times the
floor that is.

Backward is the gradient less the forward pass; host and rest is the whole step, with the gather of
its pictures, less the phases before. Decoding is once a run, or each time a batch of a set that
does not fit in memory is made. XLA's bytes are those between its fused loops: what the cache serves
is counted too.
"""

import argparse
import dataclasses
import functools
import itertools
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
    """The reference CNN and the default CNN as their experiments train them; ResNet-50 whole."""
    found, images = [], np.zeros((1, SIDE, SIDE, 3), np.uint8)
    for name, module in (("reference CNN", reference), ("default CNN", scratch)):
        config = module.Config(image_size=SIDE)
        made = module.recipe(config, Data((100,) * CLASSES, config.batch_size))
        state = steps.init_state(made.model, made.tx, images, seed)
        options = {"classes": CLASSES, "loss": made.loss, "augment": made.augment}
        options["per_example"] = made.per_example
        found.append(Work(name, state, config.batch_size, options))
    like = imagenet()
    resnet = FineTuned(ResNet(50), Head(CLASSES), like.order, like.scale, like.mean, like.std, 0)
    state = steps.init_state(resnet, optax.adamw(1e-4), images, seed)
    options = {"classes": CLASSES, "loss": steps.smoothed_cross_entropy(0.0)}
    return [*found, Work("ResNet-50", state, 16, options)]


def phases(work: Work, batches: Batches) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Phase -> a pure function and its arguments; `gradient` holds the forward pass too."""
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

    found: dict[str, Any] = {}
    if augment := work.options.get("augment"):
        found["augment"] = (lambda keys, images: augment(keys, images), (keys, images))
    found["forward"] = (forward, (state.params, images))
    found["gradient"] = (jax.value_and_grad(forward, has_aux=True), (state.params, images))
    # Any gradient will do, as long as it is not zero.
    found["optimizer"] = (optimizer, (state.params, state.opt_state, state.params))
    return found


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
        # A new function, as the program of the old one may be kept.
        program = jax.jit(lambda *given: function(*given)).lower(*arguments).compile()
    costs = program.cost_analysis()
    return np.array([costs.get("flops", 0.0), costs["bytes accessed"]])  # a copy has no FLOPs


def fastest(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest of each one's calls. All are called in turn, `rounds` times, so that
    none has the calm moments of a shared machine to itself.
    """
    found = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number > 1:  # the first compile and warm up
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def machine() -> dict[str, Callable[[], Any]]:
    """What the machine can do: a product of 2,048 a side, float32, and `a + b / 2` of 256 MB."""
    key = jax.random.key(0)
    square = jax.random.normal(key, (2048, 2048))
    product = jax.jit(lambda a: a @ a)
    a, b = (jax.random.normal(key, (1 << 26,)) for _ in range(2))
    triad = jax.jit(lambda a, b: a + 0.5 * b, donate_argnums=0)  # into `a`: no new pages

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
    """The rows of a network, and the seconds of `machine` meanwhile."""
    batches = Batches(images, labels, work.batch)
    parts = phases(work, batches)
    train_step = jax.jit(functools.partial(steps.train_step, **work.options), donate_argnums=0)
    state = jax.tree.map(jnp.copy, work.state)  # the step donates it
    ahead = itertools.chain.from_iterable(map(batches.shuffled, itertools.count(1)))

    def whole() -> jax.Array:
        nonlocal state
        state, metrics, _ = train_step(state, next(ahead))
        return metrics.loss

    calls = {name: functools.partial(jax.jit(f), *given) for name, (f, given) in parts.items()}
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
    given = parser.parse_args()
    folder = read_source(given.data, SIDE)
    start = time.perf_counter()
    images = pixels(folder, SIDE, cache=None)
    decode = (time.perf_counter() - start) / len(images)
    labels = np.array([record.label for record in folder.records], np.int32)
    rows, best = [], {"product": float("inf"), "stream": float("inf")}
    for work in networks():
        found, times = measure(work, images, labels, given.rounds)
        rows += [Row(found[0].title, "decode", decode * work.batch), *found]
        best = {name: min(value, times[name]) for name, value in best.items()}
    print(table(rows, 2 * 2048**3 / best["product"], 3 * 4 * (1 << 26) / best["stream"]))


if __name__ == "__main__":
    main()
