"""Variables of a Flax network by name, as a flat dictionary, and back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxgear.errors import UsageError

Weights = dict[str, Any]  # name (collection/layer/.../leaf) -> array


def flat(variables: PyTree) -> Weights:
    """Variables by name. Random keys become their numbers."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    named = {_name(path): _plain(leaf) for path, leaf in leaves}
    if len(named) < len(leaves):
        raise UsageError("two variables of the network have the same name")
    return named


def structured(shapes: PyTree) -> Callable[[Weights], PyTree]:
    """The inverse of `flat` for variables of these shapes, as a function."""
    named, structure = jax.tree_util.tree_flatten_with_path(shapes)

    def restore(weights: Weights) -> PyTree:
        return structure.unflatten([_as(leaf, weights[_name(path)]) for path, leaf in named])

    return restore


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A random key as numbers; any other leaf unchanged."""
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return np.asarray(jax.random.key_data(leaf))


def _as(like: Any, value: Any) -> Any:
    """`value` as a variable like `like`: a random key again if that is one."""
    if not _is_key(like):
        return value
    impls = []
    jax.eval_shape(lambda key: impls.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(value, impl=impls[0])
