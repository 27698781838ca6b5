"""Training and evaluation of batches, as pure functions. The loop compiles them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jaxgear.data.batches import Batch, Chunk, take
from jaxgear.machine import devices
from jaxgear.program.apply import forward, init, streams
from jaxgear.training import optim, parts

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
    model_state: dict[str, PyTree]  # the network's other collections: batch_stats, and its own
    averaged: PyTree  # moving average of all variables; None: not kept
    opt_state: PyTree
    key: Key[Array, ""]  # never changes: streams are folded from it with step, epoch and index
    totals: "Metrics"  # sums over the epoch so far: an interrupted epoch goes on with them
    apply: Callable[..., Any] = struct.field(pytree_node=False)  # of `forward`
    tx: optax.GradientTransformationExtraArgs = struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables to evaluate and hand on: an average where the recipe or the optimizer
        keeps one.
        """
        if self.averaged is not None:
            return self.averaged
        params = optim.evaluated_params(self.opt_state, self.params)
        return {"params": params, **self.model_state}


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
    """A state at step 0: fresh parameters for images shaped like `images`, or `variables`."""
    tx = optax.with_extra_args_support(tx)

    def start(key: Key[Array, ""], images: Num[Array, "B ..."], variables: PyTree) -> TrainState:
        if variables is None:
            variables = init(model, jax.random.fold_in(key, 0), images)
        else:
            # A copy: the step donates its state, and the caller may need them still.
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
            totals=Metrics.zero(),
            apply=forward(model),
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
    class_weights: Float[ArrayLike, " K"] | None = None,
    decay: float = 0.999,
    microbatch: int = 0,
    per_example: bool = False,
) -> tuple[TrainState, Metrics, Float[Array, ""]]:
    """One optimizer step: the new state, sums over the batch, and the norm of the gradient.

    The gradient is of the weighted mean loss over the batch's real images.

    Random choices depend on (state.key, batch.epoch, batch.index) alone: one key per example, so an
    image's augmented view does not depend on the batch it falls in. Dropout folds in `state.step`.

    Args:
        decay: of the moving average, where the state keeps one.
        microbatch: images a part, a divisor of the batch. The gradient is summed over parts, in
            the memory of one. Batch normalisation, mixing of images and dropout see parts; running
            statistics are the mean of theirs.
        per_example: the network treats each image by itself. On a CPU the gradient is then summed
            over parts that fit in its caches (parts.py).
    """
    view = functools.partial(_view, state.key, classes, augment, mix, class_weights)
    objective = functools.partial(
        _objective, state.apply, loss, batch.weight.sum(), state.model_state
    )
    dropout = jax.random.fold_in(state.key, state.step)

    def gradient(part: Batch, key: Key[Array, ""]) -> tuple[PyTree, "_Seen"]:
        of_rows = functools.partial(jax.grad(objective, has_aux=True), state.params)
        rows = view(part)
        return parts.in_cache(of_rows, rows, key) if per_example else of_rows(*rows, key)

    if microbatch in (0, len(batch.label)):
        grads, seen = gradient(batch, dropout)
    else:
        grads, seen = parts.in_turn(gradient, batch, microbatch, dropout)
        count = len(batch.label) // microbatch
        seen = seen._replace(model_state=jax.tree.map(_mean_of(count), seen.model_state))

    loss_of = lambda params: objective(params, *view(batch), dropout)[0]  # noqa: E731
    updates, opt_state = optim.update(
        state.tx, grads, state.opt_state, state.params, seen.mean_loss, loss_of
    )
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if averaged is not None:
        averaged = _moved(averaged, {"params": params, **seen.model_state}, decay, state.step)
    state = state.replace(
        step=state.step + 1,
        params=params,
        model_state=seen.model_state,
        averaged=averaged,
        opt_state=opt_state,
        totals=state.totals + seen.metrics,
    )
    return state, seen.metrics, optax.tree.norm(grads)


class _Seen(NamedTuple):
    """What a pass over a batch, or a part of it, gives beside the gradient."""

    mean_loss: Float[Array, ""]  # its share of the whole batch's
    metrics: Metrics
    model_state: dict[str, PyTree]


def _view(
    key: Key[Array, ""],
    classes: int,
    augment: Augment | None,
    mix: Mix | None,
    class_weights: Float[ArrayLike, " K"] | None,
    part: Batch,
) -> tuple[Array, ...]:
    """Images as the network sees them, targets, loss weights; weight and label of each example."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, part.epoch), part.index)
    images = part.image.astype(jnp.float32)
    if augment is not None:
        images = augment(jax.vmap(jax.random.fold_in, (0, None))(keys, 0), images)
    weight = part.weight
    if class_weights is not None:
        weight = weight * jnp.asarray(class_weights)[part.label]
    targets = jax.nn.one_hot(part.label, classes)
    if mix is not None:
        images, targets = mix(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), images, targets)
    return images, targets, weight, part.weight, part.label


def _objective(
    apply: Callable[..., Any],
    loss: Loss,
    total: Float[Array, ""],
    model_state: dict[str, PyTree],
    params: PyTree,
    images: Images,
    targets: Float[Array, "B K"],
    weight: Float[Array, " B"],
    counted: Float[Array, " B"],
    label: Int[Array, " B"],
    dropout: Key[Array, ""],
) -> tuple[Float[Array, ""], _Seen]:
    """The loss that is optimised: a weighted sum over examples, divided by `total`."""
    logits, changed = apply(
        {"params": params, **model_state},
        images,
        train=True,
        mutable=list(model_state),
        rngs={**streams(jax.random.fold_in(dropout, 1)), "dropout": dropout},
    )
    losses = loss(logits, targets)
    mean = (losses * weight).sum() / total
    metrics = _metrics(losses, logits, label, counted)
    return mean, _Seen(mean, metrics, {**model_state, **nn.unbox(changed)})


def _mean_of(count: int) -> Callable[[Array], Array]:
    """The mean of `count` values, given their sum; whole numbers, which counters are, stay such."""
    return lambda total: (
        total / count if jnp.issubdtype(total.dtype, jnp.inexact) else total // count
    )


def _moved(averaged: PyTree, now: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """The moving average after one more step; what is no real number is that of now."""
    # A short memory at first, or the average would remember the random start.
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return new
        return optax.incremental_update(new, old, rate).astype(old.dtype)

    return jax.tree.map(move, averaged, now)


def train_chunk(
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics, Float[Array, ""]]],
    mesh: Mesh,
    state: TrainState,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    chunk: Chunk,
) -> tuple[TrainState, Metrics, Float[Array, " T"]]:
    """`step` on each batch of a chunk in turn, taken from all images: one program for many steps.

    Only the first `chunk.count` rows of what is returned are valid. The count may be anything up to
    T, so that the rest of an epoch runs the same program.
    """

    def one(number: Int[Array, ""], carry: PyTree) -> PyTree:
        state, rows = carry
        index, weight = chunk.index[number], chunk.weight[number]
        state, *found = step(state, take(mesh, images, labels, index, weight, chunk.epoch))
        return state, jax.tree.map(lambda row, value: row.at[number].set(value), rows, found)

    zeros = jnp.zeros(len(chunk.index), jnp.float32)
    rows = [Metrics(zeros, zeros, zeros), zeros]
    state, (metrics, norms) = jax.lax.fori_loop(0, chunk.count, one, (state, rows))
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
