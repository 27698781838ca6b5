"""One way to call any Flax network or layer, in training or in evaluation.

Flax modules differ in the argument that says whether they train: ours take `train`, others
`deterministic`, and many take none.
"""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# Keyword -> its value in training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def mode(module: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The keyword arguments that tell `module` whether it trains; {} if it takes none.

    `module` is a Linen module, an NNX module in `nnx.bridge.ToLinen`, or a function.
    """
    called = module
    if isinstance(module, nn.Module):
        called = getattr(module, "nnx_class", type(module)).__call__
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):  # a builtin
        return {}
    return {name: train is value for name, value in MODES.items() if name in parameters}


def forward(model: nn.Module) -> Callable[..., Any]:
    """The function `apply(variables, images, train, **options)` -> logits, float32 [B, K].

    It converts images to float32, because arithmetic on bytes wraps around. `options` go to
    `model.apply`; with `mutable` it also returns the changed collections.
    """

    def apply(variables: PyTree, images: Any, train: bool, **options: Any) -> Any:
        images = jnp.asarray(images, jnp.float32)
        output = model.apply(variables, images, **mode(model, train), **options)
        if "mutable" in options:
            logits, changed = output
            return _float32(logits), changed
        return _float32(output)

    return apply


def init(model: nn.Module, key: Any, images: Any) -> PyTree:
    """Fresh variables of a network, as plain arrays without Flax's metadata boxes."""
    images = jnp.asarray(images, jnp.float32)
    return nn.unbox(model.init(streams(key), images, **mode(model, train=False)))


def streams(key: Any) -> dict[str, Any]:
    """Random streams for a network. Linen derives others from "params", NNX from "default"."""
    return {
        "params": key,
        "dropout": jax.random.fold_in(key, 1),
        "default": jax.random.fold_in(key, 2),
    }


def watched(
    apply: Callable[..., Array], variables: PyTree, images: Array
) -> tuple[Array, tuple[str | None, Array | None]]:
    """Logits, and the name and input of the dense layer that gave them.

    Name and input are None if something else gave the logits.
    """
    dense: list[tuple[str, Array, Array]] = []

    def watch(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if type(context.module) is nn.Dense and context.method_name == "__call__":
            name = "/".join(("params", *context.module.path))
            if {"kernel", "bias"} <= context.module.variables.get("params", {}).keys():
                dense.append((name, args[0], y))
        return y

    with nn.intercept_methods(watch):
        logits = apply(variables, images, train=False)
    if dense and dense[-1][2] is logits and dense[-1][1].ndim == 2:
        return logits, (dense[-1][0], dense[-1][1].astype(jnp.float32))
    return logits, (None, None)


def _float32(logits: Any) -> Any:
    # Return the same object if it is float32: `watched` looks for the layer that gave it.
    return logits if logits.dtype == jnp.float32 else logits.astype(jnp.float32)
