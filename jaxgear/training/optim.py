"""Additions to optax: Muon that is fast on CPUs, masks, and the inputs and rates of any optimizer.

An experiment builds its optimizer itself, as an optax expression of a rate.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax.contrib import MuonDimensionNumbers, ScheduleFreeState

from jaxgear.machine import devices

# Jordan et al. 2024. Singular values end between 0.7 and 1.2 instead of at 1, which is enough.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def update(
    tx: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    value: Float[Array, ""],
    loss_of: Callable[[PyTree], Float[Array, ""]],
) -> tuple[PyTree, PyTree]:
    """Calls `tx.update` with every extra argument that an optax optimizer may take.

    These are the loss (`value`), its gradient (`grad`), the loss of this batch as a function of the
    parameters (`value_fn`; `obj_fn` for Sophia) and its gradient function (`grad_fn`, for opaque
    SAM).
    """

    # Line searches pass `value_fn` any extra argument that it names; it ignores these two.
    def value_fn(params: PyTree, obj_fn: Any = None, grad_fn: Any = None) -> Float[Array, ""]:
        return loss_of(params)

    extra = {
        "value": value,
        "grad": grads,
        "value_fn": value_fn,
        "obj_fn": value_fn,
        "grad_fn": lambda params, _: jax.grad(loss_of)(params),
    }
    known = inspect.signature(tx.update).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
        extra = {p.name: extra[p.name] for p in known if p.name in extra}
    return tx.update(grads, opt_state, params, **extra)


def evaluated_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate: the optimizer's own average, if it keeps one.

    Schedule-free optimizers keep one (Defazio et al. 2024) and train other parameters.
    """
    for state in _states(opt_state, ScheduleFreeState):
        average = functools.partial(_schedule_free_average, state.b1)
        params = jax.tree.map(
            average, state.z, params, is_leaf=lambda z: isinstance(z, optax.MaskedNode)
        )
    return params


def _schedule_free_average(b1: Any, z: Any, y: PyTree) -> PyTree:
    if isinstance(z, optax.MaskedNode):  # another optimizer trains these
        return y
    return (y - (1.0 - b1) * z) / b1


def moving_average(averaged: PyTree, new: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """The moving average after one more step; leaves that are not floats come from `new`."""
    # A short memory at first, or the average would remember the random start.
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return new
        return optax.incremental_update(new, old, rate).astype(old.dtype)

    return jax.tree.map(move, averaged, new)


class Rate:
    """A learning rate schedule that records whether an optimizer uses it."""

    def __init__(self, schedule: optax.Schedule):
        self._schedule = schedule
        self.used = False

    def __call__(self, update: Any) -> Any:
        self.used = True
        return self._schedule(update)

    def recorded(self, update: Any) -> Any:
        """The rate at an update, for the history; NaN if the optimizer does not use it."""
        return self._schedule(update) if self.used else jnp.nan


def warmup_cosine(peak: float, steps: int, warmup: float) -> optax.Schedule:
    """Rises from a tenth of `peak` to `peak` over the share `warmup` of all steps, then falls along
    a cosine to a hundredth of `peak`.
    """
    return optax.warmup_cosine_decay_schedule(
        0.1 * peak, peak, int(warmup * steps), steps, 0.01 * peak
    )


def rate_used(rate: optax.Schedule, opt_state: PyTree, step: int) -> float:
    """The learning rate of the last update before `opt_state`, after `step` >= 1 steps.

    Counters inside the optimizer give the number of updates. It is smaller than the number of steps
    if the optimizer accumulates gradients over steps or skips steps.
    """
    for state in _states(opt_state, optax.InjectStatefulHyperparamsState):
        if "learning_rate" in state.hyperparams:
            return float(devices.local(state.hyperparams["learning_rate"]))
    counts = [s.count for s in _states(opt_state, optax.ScaleByScheduleState)]
    counts += [s.step_count for s in _states(opt_state, ScheduleFreeState)]
    updates = max((int(np.max(devices.local(count))) for count in counts), default=step)
    return float(rate(max(0, updates - 1)))


def _states(opt_state: PyTree, kind: type) -> list[Any]:
    """The states of type `kind` inside `opt_state`, outermost first."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def kernels(params: PyTree) -> PyTree:
    """A mask for weight decay: True for kernels, False for biases and normalisation."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def muon(
    learning_rate: optax.ScalarOrSchedule,
    adam_learning_rate: optax.ScalarOrSchedule,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """`optax.contrib.muon` for convolution kernels (Jordan et al. 2024), Adam for the rest.

    A kernel [kh, kw, Cin, Cout] counts as a matrix [kh * kw * Cin, Cout]. Adam with Nesterov
    momentum trains all other parameters, including the head, as Muon's authors advise.
    `weight_decay` acts on the kernels only. Updates equal optax's but for rounding, and take a
    fifth of its time on a CPU (results/README.md, "Muon on Gram matrices").
    """

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda p: "muon" if p.ndim == 4 else "adam", params)

    def matrices(updates: PyTree) -> PyTree:
        return jax.tree.map(lambda _: MuonDimensionNumbers((0, 1, 2), 3), updates)

    def orthogonal(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(_kernel_update, updates)

    return optax.partition(
        {
            "muon": optax.chain(
                # Momentum only: with 0 iterations it just divides by the norm.
                optax.contrib.scale_by_muon(ns_steps=0, weight_dimension_numbers=matrices),
                optax.stateless(orthogonal),
                optax.add_decayed_weights(weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            ),
            "adam": optax.adamw(adam_learning_rate, weight_decay=0.0, nesterov=True),
        },
        labels,
    )


def _kernel_update(kernel: Float[Array, "kh kw Cin Cout"]) -> Float[Array, "kh kw Cin Cout"]:
    matrix = kernel.reshape(-1, kernel.shape[-1])
    rows, columns = matrix.shape
    return max(1, columns / rows) ** 0.5 * orthogonalized(matrix).reshape(kernel.shape)


def orthogonalized(matrix: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The matrix with singular values near 1; a zero matrix stays zero.

    Muon's Newton-Schulz iteration, X <- (a + b X X' + c (X X')^2) X.
    """
    norm = jnp.linalg.norm(matrix)
    matrix /= jnp.where(norm == 0, 1, norm)
    # GPUs gain nothing from fewer products. They round products to TF32 by default, which can make
    # small eigenvalues of X X' negative, and negative ones would grow.
    return jax.lax.platform_dependent(matrix, cpu=by_gram, default=by_matrix)


def by_matrix(x: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The iteration as published, for a matrix of norm 1."""
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        if x.shape[0] >= x.shape[1]:
            gram = x.T @ x
            x = a * x + x @ (b * gram + c * gram @ gram)
        else:
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def by_gram(x: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The same iteration with fewer large products.

    All factors are polynomials of the first X X', so they commute. They are multiplied with each
    other in the smaller dimension of X, and then once with X.
    """
    a, b, c = QUINTIC
    tall = x.shape[0] >= x.shape[1]
    gram = x.T @ x if tall else x @ x.T
    product = None
    for last in [False] * (ITERATIONS - 1) + [True]:
        factor = a * jnp.eye(len(gram)) + b * gram + c * (gram @ gram)
        product = factor if product is None else product @ factor
        if not last:
            gram = factor @ gram @ factor
    return x @ product if tall else product @ x
