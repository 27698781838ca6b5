"""Training and evaluation of batches, as pure functions. The loop compiles them."""

import functools
from collections.abc import Callable
from typing import Any, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jaxgear import devices
from jaxgear.data.batches import Batch, Stretch, take
from jaxgear.training import parts

Keys = Key[Array, " B"]  # one per example
Images = Float[Array, "B ..."]  # [B, S, S, 3], or what a network takes in their place
Augment = Callable[[Keys, Images], Images]
Mix = Callable[[Keys, Images, Float[Array, "B K"]], tuple[Images, Float[Array, "B K"]]]
Loss = Callable[[Float[Array, "B K"], Float[Array, "B K"]], Float[Array, " B"]]


@no_type_check  # JAX also fills trees with things that are not arrays
class TrainState(struct.PyTreeNode):
    """Everything that training changes, and the two functions that change it."""

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    averaged: PyTree  # moving average of {"params", "batch_stats"}; None: not kept
    opt_state: PyTree
    key: Key[Array, ""]  # never changes: streams are folded from it with step, epoch and index
    totals: "Metrics"  # sums over the epoch so far: an interrupted epoch goes on with them
    apply: Callable[..., Any] = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables to evaluate and hand on: the average where one is kept."""
        if self.averaged is not None:
            return self.averaged
        return {"params": self.params, "batch_stats": self.batch_stats}


@no_type_check
class Metrics(struct.PyTreeNode):
    """Sums over examples, divided once at the end: batches of any size add up to the exact mean."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Metrics":
        """Sums over nothing, in buffers of their own: a step may donate them."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(3)))

    def __add__(self, other: "Metrics") -> "Metrics":
        return jax.tree.map(jnp.add, self, other)


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    images: Num[ArrayLike, "B ..."],
    seed: int,
    average: bool = False,
    variables: PyTree = None,
) -> TrainState:
    """A state at step 0: fresh parameters for pictures shaped like `images`, or `variables`."""

    def start(key: Key[Array, ""], images: Num[Array, "B ..."], variables: PyTree) -> TrainState:
        if variables is None:
            variables = model.init(jax.random.fold_in(key, 0), images, train=False)
        else:
            # A copy: the step donates its state, and whoever gave them may need them still.
            variables = jax.tree.map(jnp.copy, variables)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            averaged={"params": params, "batch_stats": batch_stats} if average else None,
            opt_state=tx.init(params),
            key=jax.random.fold_in(key, 1),
            totals=Metrics.zero(),
            apply=model.apply,
            tx=tx,
        )

    # One program, which gives each leaf a buffer of its own. It runs once: LLVM's optimizations
    # would take longer than they save.
    once = jax.jit(start, compiler_options={"xla_backend_optimization_level": 0})
    return once(jax.random.key(seed), images, devices.local(variables))


def smoothed_cross_entropy(smoothing: float) -> Loss:
    """Cross-entropy against labels smoothed by `smoothing` (Szegedy et al. 2016), per example."""
    return lambda logits, targets: optax.softmax_cross_entropy(
        logits, optax.smooth_labels(targets, smoothing)
    )


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    classes: int,
    loss: Loss,
    augment: Augment | None = None,
    mix: Mix | None = None,
    class_weights: Float[Array, " K"] | None = None,
    decay: float = 0.999,
    microbatch: int = 0,
) -> tuple[TrainState, Metrics, Float[Array, ""]]:
    """One optimizer step: the new state, sums over the batch, and the norm of the gradient.

    The gradient is of the weighted mean loss over the batch's real pictures.

    Random choices depend on (state.key, batch.epoch, batch.index) alone: one key per example, so a
    picture's augmented view does not depend on the batch it falls in. Dropout folds in
    `state.step`. `decay` is that of the moving average, where the state keeps one.

    With a `microbatch` of so many pictures, a divisor of the batch, the gradient is summed over
    parts of that size, in the memory of one: the same gradient but for rounding, where the network
    treats each picture by itself. Batch normalisation, mixing of pictures and dropout see parts;
    running statistics are the mean of theirs.
    """

    def gradient(part: Batch, dropout: Key[Array, ""]):
        views = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.fold_in(state.key, part.epoch), part.index
        )
        images = part.image.astype(jnp.float32)
        if augment is not None:
            images = augment(jax.vmap(jax.random.fold_in, (0, None))(views, 0), images)
        weight = part.weight if class_weights is None else part.weight * class_weights[part.label]
        targets = jax.nn.one_hot(part.label, classes)
        if mix is not None:
            keys = jax.vmap(jax.random.fold_in, (0, None))(views, 1)
            images, targets = mix(keys, images, targets)

        def mean_loss(params, images, targets, weight, seen, label, dropout):
            logits, changed = state.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout},
            )
            losses = loss(logits, targets)
            mean = (losses * weight).sum() / batch.weight.sum()
            metrics = _metrics(losses, logits, label, seen)
            return mean, (metrics, changed.get("batch_stats", {}))

        of_rows = functools.partial(jax.grad(mean_loss, has_aux=True), state.params)
        rows = (images, targets, weight, part.weight, part.label)
        if state.batch_stats:  # the network may look at the batch as a whole
            return of_rows(*rows, dropout)
        return parts.in_cache(of_rows, rows, dropout)

    dropout = jax.random.fold_in(state.key, state.step)
    if microbatch in (0, len(batch.label)):
        grads, (metrics, batch_stats) = gradient(batch, dropout)
    else:
        grads, (metrics, batch_stats) = parts.in_turn(gradient, batch, microbatch, dropout)
        count = len(batch.label) // microbatch
        batch_stats = jax.tree.map(lambda total: total / count, batch_stats)
    updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if averaged is not None:
        # A short memory at first, or the average would remember the random start.
        rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
        averaged = optax.incremental_update(
            {"params": params, "batch_stats": batch_stats}, averaged, 1.0 - rate
        )
    state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        averaged=averaged,
        opt_state=opt_state,
        totals=state.totals + metrics,
    )
    return state, metrics, optax.tree.norm(grads)


def train_stretch(
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics, Float[Array, ""]]],
    mesh: Mesh,
    state: TrainState,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    stretch: Stretch,
) -> tuple[TrainState, Metrics, Float[Array, " T"]]:
    """`step` on each batch of a stretch in turn, taken from all pictures: one program for many.

    What each step returns lies in rows 0 to `stretch.count`, of which there may be any number up to
    T: the program is the same for the rest of an epoch.
    """

    def one(number: Int[Array, ""], carry: PyTree) -> PyTree:
        state, rows = carry
        index, weight = stretch.index[number], stretch.weight[number]
        state, *found = step(state, take(mesh, images, labels, index, weight, stretch.epoch))
        return state, jax.tree.map(lambda row, value: row.at[number].set(value), rows, found)

    zeros = jnp.zeros(len(stretch.index), jnp.float32)
    rows = [Metrics(zeros, zeros, zeros), zeros]
    state, (metrics, norms) = jax.lax.fori_loop(0, stretch.count, one, (state, rows))
    return state, metrics, norms


def eval_step(
    apply: Callable[..., Any], variables: PyTree, batch: Batch
) -> tuple[Metrics, Float[Array, "B K"]]:
    """Cross-entropy and accuracy summed over the batch's real pictures, and the logits of all."""
    logits = apply(variables, batch.image, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return _metrics(losses, logits, batch.label, batch.weight), logits


def _metrics(
    losses: Float[Array, " B"],
    logits: Float[Array, "B K"],
    label: Int[Array, " B"],
    weight: Float[Array, " B"],
) -> Metrics:
    right = logits.argmax(axis=-1) == label
    return Metrics(
        loss=(losses * weight).sum(),
        correct=(right * weight).sum(),
        count=weight.sum(),
    )
