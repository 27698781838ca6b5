"""The state of training, and the sums that a step adds up. Both are trees of arrays."""

from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxgear.training import optim


@no_type_check  # JAX also fills trees with things that are not arrays
class Metrics(struct.PyTreeNode):
    """Sums over examples. They are divided once, so batches of any size give the exact mean."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Metrics":
        """Zeros, each in its own buffer, because a step may donate them."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(3)))

    @classmethod
    def of(cls, losses: Array, logits: Array, label: Array, weight: Array) -> "Metrics":
        """Sums over a batch, weighted: losses [B], logits [B, K], labels [B], weights [B]."""
        correct = logits.argmax(axis=-1) == label
        return cls(
            loss=(losses * weight).sum(),
            correct=(correct * weight).sum(),
            count=weight.sum(),
        )

    def __add__(self, other: "Metrics") -> "Metrics":
        return jax.tree.map(jnp.add, self, other)


@no_type_check
class TrainState(struct.PyTreeNode):
    """Everything that training changes, and the two functions that change it."""

    step: Int[Array, ""]
    params: PyTree
    model_state: dict[str, PyTree]  # the network's other collections, such as batch_stats
    averaged: PyTree  # moving average of all variables, or None
    opt_state: PyTree
    key: Key[Array, ""]  # never changes: step, epoch and index are folded into it
    totals: Metrics  # sums over the epoch so far, so an interrupted epoch can continue
    apply: Callable[..., Any] = struct.field(pytree_node=False)  # made by `program.forward`
    tx: optax.GradientTransformationExtraArgs = struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables to evaluate and bundle: the moving average of the recipe or optimizer, if
        there is one.
        """
        if self.averaged is not None:
            return self.averaged
        params = optim.evaluated_params(self.opt_state, self.params)
        return {"params": params, **self.model_state}
