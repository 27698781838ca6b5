"""What optax lacks: Muon that is quick on CPUs, masks, and what a step must know of an optimizer.

Optimizers are put together in the experiment, as expressions of a rate.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree
from optax.contrib import MuonDimensionNumbers, ScheduleFreeState

from jaxgear.machine import devices

# Of Jordan et al. 2024: singular values end between 0.7 and 1.2, not at 1, which is enough.
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
    """`tx.update`, told all that an optimizer of optax may ask for beside the gradient.

    That is the loss (`value`), its gradient (`grad`), and the loss of this batch as a function of
    the parameters (`value_fn`; `obj_fn` for Sophia) with its gradient (`grad_fn`, for opaque SAM).
    """

    # Line searches hand it whatever they do not know, and only under names that it takes.
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
    """The parameters to evaluate: the optimizer's own average where it keeps one.

    Schedule-free optimizers do (Defazio et al. 2024); they train on other parameters.
    """
    for state in _states(opt_state, ScheduleFreeState):
        average = functools.partial(_schedule_free_average, state.b1)
        params = jax.tree.map(
            average, state.z, params, is_leaf=lambda z: isinstance(z, optax.MaskedNode)
        )
    return params


def _schedule_free_average(b1: Any, z: Any, y: PyTree) -> PyTree:
    if isinstance(z, optax.MaskedNode):  # another optimizer moves these
        return y
    return (y - (1.0 - b1) * z) / b1


class Rate:
    """A learning rate that an optimizer is made with: knows whether the optimizer asks for it."""

    def __init__(self, schedule: optax.Schedule):
        self._schedule = schedule
        self.asked = False

    def __call__(self, update: Any) -> Any:
        self.asked = True
        return self._schedule(update)

    def recorded(self, update: Any) -> Any:
        """The rate at an update, for the history; not a number where no optimizer asked for it."""
        return self._schedule(update) if self.asked else jnp.nan


def warmup_cosine(peak: float, steps: int, warmup: float) -> optax.Schedule:
    """From a tenth of `peak` up to it in the part `warmup` of all steps, then down to a hundredth
    along a cosine.
    """
    return optax.warmup_cosine_decay_schedule(
        0.1 * peak, peak, int(warmup * steps), steps, 0.01 * peak
    )


def rate_used(rate: optax.Schedule, opt_state: PyTree, step: int) -> float:
    """The learning rate of the last update before `opt_state`, after `step` >= 1 steps.

    Counters inside the optimizer tell which it was: an optimizer that gathers gradients over steps,
    or skips some, makes fewer updates than steps.
    """
    for state in _states(opt_state, optax.InjectStatefulHyperparamsState):
        if "learning_rate" in state.hyperparams:
            return float(devices.local(state.hyperparams["learning_rate"]))
    counts = [s.count for s in _states(opt_state, optax.ScaleByScheduleState)]
    counts += [s.step_count for s in _states(opt_state, ScheduleFreeState)]
    updates = max((int(np.max(devices.local(count))) for count in counts), default=step)
    return float(rate(max(0, updates - 1)))


def _states(opt_state: PyTree, kind: type) -> list[Any]:
    """The states of one kind inside an optimizer's, outermost first."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def kernels(params: PyTree) -> PyTree:
    """True for kernels, False for biases and normalisation: what weight decay should act on."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def muon(
    learning_rate: optax.ScalarOrSchedule,
    adam_learning_rate: optax.ScalarOrSchedule,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """`optax.contrib.muon` for convolution kernels (Jordan et al. 2024), Adam for all else.

    A kernel [kh, kw, Cin, Cout] is a matrix to Cout. All other parameters, the head among them, are
    left to Adam with Nesterov's momentum, as its authors advise; `weight_decay` is that of the
    kernels. The same updates as optax's but for rounding, on a CPU in a fifth of its time
    (results/README.md, "Muon on Gram matrices").
    """

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda p: "muon" if p.ndim == 4 else "adam", params)

    def matrices(updates: PyTree) -> PyTree:
        return jax.tree.map(lambda _: MuonDimensionNumbers((0, 1, 2), 3), updates)

    def turned(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(_kernel_update, updates)

    return optax.partition(
        {
            "muon": optax.chain(
                # Its momentum alone: without iterations it only divides by the norm.
                optax.contrib.scale_by_muon(ns_steps=0, weight_dimension_numbers=matrices),
                optax.stateless(turned),
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
    """The matrix with its singular values brought near 1; zeros stay zeros.

    Newton-Schulz iteration of Muon, X <- (a + b X X' + c (X X')^2) X.
    """
    norm = jnp.linalg.norm(matrix)
    matrix /= jnp.where(norm == 0, 1, norm)
    # A GPU has nothing of the fewer products, and rounds them to TensorFloat-32 where it is not
    # kept from it, which makes small eigenvalues of X X' negative: those would grow.
    return jax.lax.platform_dependent(matrix, cpu=by_gram, default=by_matrix)


def by_matrix(x: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The iteration as it is written, for a matrix of norm 1."""
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
    """The same for fewer products: its factors are all polynomials of the first X X', so they are
    multiplied with each other, in the smaller dimension of X, and with X once.
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
