"""Names the faulty part of a recipe in one line when JAX, Flax or optax raises.

It costs nothing in a sound run: the parts are traced one by one only after an error.
"""

import contextlib
import functools
import site
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxgear.data.batches import Batches, resized
from jaxgear.errors import GearError, UsageError, first_line
from jaxgear.experiment.recipe import Recipe
from jaxgear.machine import hosts
from jaxgear.program.apply import forward, init, streams
from jaxgear.training import optim

PACKAGE = str(Path(__file__).parents[1])


@contextlib.contextmanager
def diagnosed(recipe: Recipe, train: Batches, classes: int) -> Iterator[None]:
    """Turns an error of a network, augmentation, loss or optimizer into a UsageError that names it.

    Other errors pass unchanged.
    """
    try:
        yield
    except GearError:
        raise
    except Exception as error:
        # Errors of the machine, not of the recipe. After a lost host, JAX soon ends this process.
        machine = isinstance(error, OSError | MemoryError | jax.errors.JaxRuntimeError)
        if machine or hosts.lost_host(error):
            raise
        for name, part in _parts(recipe, train, classes):
            try:
                part()
            except Exception as fault:
                raise UsageError(f"{_named(name, fault)}: {_reason(fault)}") from error
        raise


def _parts(
    recipe: Recipe, train: Batches, classes: int
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Name and shape check of each part of a step, in order; a part uses the shapes before it."""
    shape = (train.batch_size, *train.images.shape[1:])
    plain = (*shape[:-1], 3) if recipe.features is None else (shape[0], *shape[2:])
    shapes: dict[str, Any] = {
        "images": jax.ShapeDtypeStruct(shape if recipe.features is None else plain, jnp.float32),
        "plain": jax.ShapeDtypeStruct(plain, jnp.float32),  # without augmentation, or masks
        "targets": jax.ShapeDtypeStruct((shape[0], classes), jnp.float32),
    }
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape[0]))
    key = jax.eval_shape(lambda: jax.random.key(0))
    apply, network = forward(recipe.model), f"network {type(recipe.model).__name__}"

    def augment() -> None:
        if recipe.features is None and recipe.augment is not None:
            shapes["images"] = jax.eval_shape(recipe.augment, keys, shapes["images"])

    def mix() -> None:
        if recipe.mix is not None:
            batch = (shapes["images"], shapes["targets"])
            shapes["images"], shapes["targets"] = jax.eval_shape(recipe.mix, keys, *batch)

    def initialised() -> None:
        make = lambda key, images: init(recipe.model, key, images)  # noqa: E731
        variables = jax.eval_shape(make, key, shapes["plain"])
        shapes["params"] = variables.pop("params", {})
        shapes["state"] = variables

    def evaluated() -> None:
        run = lambda p, s, x: apply({"params": p, **s}, x, train=False)  # noqa: E731
        logits = jax.eval_shape(run, shapes["params"], shapes["state"], shapes["plain"])
        _check_logits(logits, classes)

    def objective(params: Any, state: Any, images: Any, targets: Any, key: Any) -> Any:
        logits, _ = apply(
            {"params": params, **state},
            images,
            train=True,
            mutable=list(state),
            rngs=streams(key),
        )
        _check_logits(logits, classes)
        losses = recipe.loss(logits, targets)
        _check_losses(losses, len(targets))
        return losses.mean()

    def trained() -> None:
        rest = [shapes[name] for name in ("params", "state", "images", "targets")]
        jax.eval_shape(jax.grad(objective), *rest, key)

    def at_scale(scale: float) -> None:
        rest = [shapes[name] for name in ("params", "state")]
        images = jax.eval_shape(lambda images: resized(images, scale), shapes["images"])
        jax.eval_shape(objective, *rest, images, shapes["targets"], key)

    def optimized() -> None:
        def update(params: Any, state: Any, images: Any, targets: Any, key: Any) -> Any:
            loss_of = lambda params: objective(params, state, images, targets, key)  # noqa: E731
            value, grads = jax.value_and_grad(loss_of)(params)
            tx = recipe.tx
            return optim.update(tx, grads, tx.init(params), params, value, loss_of)

        rest = [shapes[name] for name in ("params", "state", "images", "targets")]
        jax.eval_shape(update, *rest, key)

    yield "augmentation", augment
    yield "mix", mix
    yield network, initialised
    yield f"{network} in evaluation", evaluated
    yield f"{network} or loss in training", trained
    for scale in dict.fromkeys(recipe.scales):
        side = round(scale * shape[1])
        yield f"{network} with images of {side} px (resize)", functools.partial(at_scale, scale)
    yield "optimizer", optimized


def _check_logits(logits: Any, classes: int) -> None:
    if getattr(logits, "ndim", None) != 2 or logits.shape[1] != classes:
        shape = list(getattr(logits, "shape", []))
        raise ValueError(f"gives {shape}, not [batch, {classes}], one logit per class")


def _check_losses(losses: Any, batch: int) -> None:
    if jnp.size(losses) != batch:
        shape = list(jnp.shape(losses))
        raise ValueError(f"the loss gives {shape}, not [{batch}], one value for each image")


def _named(name: str, fault: Exception) -> str:
    """The name of a part; for an optimizer, also the optax function that failed."""
    frames = traceback.walk_tb(fault.__traceback__)
    inside = [f.f_code.co_qualname for f, _ in frames if "/optax/" in f.f_code.co_filename]
    if name == "optimizer" and inside:
        return f"optimizer {inside[-1].partition('.')[0]}"
    return name


def _reason(fault: Exception) -> str:
    """The first line of an error, and the last line of the user's own code that led to it."""
    outside = (PACKAGE, sys.prefix, sys.base_prefix, *site.getsitepackages())
    where = [
        f" ({Path(frame.f_code.co_filename).name}:{number})"
        for frame, number in traceback.walk_tb(fault.__traceback__)
        if not frame.f_code.co_filename.startswith((*outside, "<"))
    ]
    return f"{type(fault).__name__}: {first_line(fault)}{where[-1] if where else ''}"
