"""The state of training, and the sums that a step adds up. Both are trees of arrays."""

from collections.abc import Callable
from typing import Any, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jaxgear.machine import devices
from jaxgear.program.apply import forward, init
from jaxgear.training import optim


@no_type_check  # JAX also fills trees with things that are not arrays
class Metrics(struct.PyTreeNode):
    """Sums over examples. They are divided once, so batches of any size give the exact mean."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]
    pseudo: "Pseudo | None" = None  # None: training uses no images without labels

    @classmethod
    def zero(cls, pseudo: bool = False) -> "Metrics":
        """Zeros, each in its own buffer, because a step may donate them."""
        zeros = [jnp.zeros((), jnp.float32) for _ in range(7)]
        return cls(*zeros[:3], Pseudo(*zeros[3:]) if pseudo else None)

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
class Pseudo(struct.PyTreeNode):
    """Sums over examples without labels that training saw."""

    seen: Float[Array, ""]
    used: Float[Array, ""]  # with a pseudo-label
    checked: Float[Array, ""]  # used, and a label is known that training does not see
    right: Float[Array, ""]  # checked, and the pseudo-label is this one


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


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    images: Num[ArrayLike, "B ..."],
    seed: int,
    average: bool = False,
    variables: PyTree = None,
    pseudo_labels: bool = False,
) -> TrainState:
    """The state at step 0, with `variables` or fresh ones for images shaped like `images`."""
    tx = optax.with_extra_args_support(tx)

    def start(key: Key[Array, ""], images: Num[Array, "B ..."], variables: PyTree) -> TrainState:
        if variables is None:
            variables = init(model, jax.random.fold_in(key, 0), images)
        else:
            # Copy: the step donates its state, and the caller may still need the variables.
            variables = jax.tree.map(jnp.copy, variables)
        model_state = {name: tree for name, tree in variables.items() if name != "params"}
        params = variables.get("params", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            averaged={"params": params, **model_state} if average else None,
            opt_state=tx.init(params),
            key=jax.random.fold_in(key, 1),
            totals=Metrics.zero(pseudo_labels),
            apply=forward(model),
            tx=tx,
        )

    # One program gives each leaf its own buffer. It runs once, so LLVM's optimizations would take
    # longer than they save.
    once = jax.jit(start, compiler_options={"xla_backend_optimization_level": 0})
    return once(jax.random.key(seed), images, devices.local(variables))
