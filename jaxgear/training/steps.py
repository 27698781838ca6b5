"""Training and evaluation steps on batches, as pure functions. The loop compiles them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jaxgear.data.batches import Batch, Chunk, resized
from jaxgear.machine import devices
from jaxgear.program.apply import forward, init, streams
from jaxgear.training import optim, parts
from jaxgear.training.state import Metrics, TrainState

Keys = Key[Array, " B"]  # one per example
Images = Float[Array, "B ..."]  # [B, S, S, 3], or features
Augment = Callable[[Keys, Images], Images]
Mix = Callable[[Keys, Images, Float[Array, "B K"]], tuple[Images, Float[Array, "B K"]]]
Loss = Callable[[Float[Array, "B K"], Float[Array, "B K"]], Float[Array, " B"]]


def init_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    images: Num[ArrayLike, "B ..."],
    seed: int,
    average: bool = False,
    variables: PyTree = None,
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
            totals=Metrics.zero(),
            apply=forward(model),
            tx=tx,
        )

    # One program gives each leaf its own buffer. It runs once, so LLVM's optimizations would take
    # longer than they save.
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
    scale: float = 1.0,
) -> tuple[TrainState, Metrics, Float[Array, ""]]:
    """One optimizer step: returns the new state, sums over the batch and the gradient norm.

    The loss is the weighted mean over the batch's real examples (weight above 0).

    Random choices depend only on (state.key, batch.epoch, batch.index). There is one key per
    example, so an augmented view does not depend on its batch. Dropout folds in `state.step`.

    Args:
        decay: of the moving average, if the state keeps one.
        microbatch: examples per part; must divide the batch. The gradient is summed over parts, in
            the memory of one part. Batch normalisation, `mix` and dropout see one part at a time;
            running statistics are the mean over parts.
        per_example: the network treats each example by itself. On a CPU the gradient is then summed
            over parts that fit in its caches (parts.py).
        scale: factor on the side of the augmented images, as `data.batches.resized`.
    """
    view = functools.partial(_view, state.key, classes, augment, mix, class_weights, scale)
    objective = functools.partial(
        _objective, state.apply, loss, batch.weight.sum(), state.model_state
    )
    dropout = jax.random.fold_in(state.key, state.step)
    gradient = functools.partial(_gradient, view, objective, state.params, per_example)
    if microbatch in (0, len(batch.label)):
        grads, forward_pass = gradient(batch, dropout)
    else:
        grads, forward_pass = parts.in_turn(gradient, batch, microbatch, dropout)
        model_state = parts.mean(forward_pass.model_state, len(batch.label) // microbatch)
        forward_pass = forward_pass._replace(model_state=model_state)
    loss_of = lambda params: objective(params, *view(batch), dropout)[0]  # noqa: E731
    state = _updated(state, grads, forward_pass, loss_of, decay)
    return state, forward_pass.metrics, optax.tree.norm(grads)


class _Pass(NamedTuple):
    """Results of a forward pass over a batch or a part of it."""

    mean_loss: Float[Array, ""]  # a part's share of the mean over the whole batch
    metrics: Metrics
    model_state: dict[str, PyTree]


def _view(
    key: Key[Array, ""],
    classes: int,
    augment: Augment | None,
    mix: Mix | None,
    class_weights: Float[ArrayLike, " K"] | None,
    scale: float,
    part: Batch,
) -> tuple[Array, ...]:
    """Augmented images, targets, loss weights, and the weight and label of each example."""
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
    return resized(images, scale), targets, weight, part.weight, part.label


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
) -> tuple[Float[Array, ""], _Pass]:
    """The loss to minimise: a weighted sum over examples, divided by `total`."""
    logits, changed = apply(
        {"params": params, **model_state},
        images,
        train=True,
        mutable=list(model_state),
        rngs={**streams(jax.random.fold_in(dropout, 1)), "dropout": dropout},
    )
    losses = loss(logits, targets).reshape(len(weight))  # a mean of them fails here
    mean = (losses * weight).sum() / total
    metrics = Metrics.of(losses, logits, label, counted)
    return mean, _Pass(mean, metrics, {**model_state, **nn.unbox(changed)})


def _gradient(
    view: Callable[[Batch], tuple[Array, ...]],
    objective: Callable[..., tuple[Float[Array, ""], _Pass]],
    params: PyTree,
    per_example: bool,
    part: Batch,
    dropout: Key[Array, ""],
) -> tuple[PyTree, _Pass]:
    """The gradient of `objective` over a batch, or over a part of it, and the forward pass."""
    of_rows = functools.partial(jax.grad(objective, has_aux=True), params)
    rows = view(part)
    return parts.in_cache(of_rows, rows, dropout) if per_example else of_rows(*rows, dropout)


def _updated(
    state: TrainState,
    grads: PyTree,
    forward_pass: _Pass,
    loss_of: Callable[[PyTree], Float[Array, ""]],
    decay: float,
) -> TrainState:
    """The state after the optimizer's update."""
    updates, opt_state = optim.update(
        state.tx, grads, state.opt_state, state.params, forward_pass.mean_loss, loss_of
    )
    params = optax.apply_updates(state.params, updates)
    averaged = state.averaged
    if averaged is not None:
        variables = {"params": params, **forward_pass.model_state}
        averaged = optim.moving_average(averaged, variables, decay, state.step)
    return state.replace(
        step=state.step + 1,
        params=params,
        model_state=forward_pass.model_state,
        averaged=averaged,
        opt_state=opt_state,
        totals=state.totals + forward_pass.metrics,
    )


def train_chunk(
    step: Callable[[PyTree, Batch], tuple[PyTree, Metrics, Float[Array, ""]]],
    take: Callable[..., Batch],
    state: PyTree,
    chunk: Chunk,
) -> tuple[PyTree, Metrics, Float[Array, " T"]]:
    """Runs `step` on each batch of a chunk of steps, in one program.

    Only the first `chunk.count` rows of the metrics and norms are valid. The count may be anything
    up to T, so the last chunk of an epoch runs the same program.

    Args:
        take: makes a batch from its index, weight and epoch.
    """

    def run(number: Int[Array, ""], carry: PyTree) -> PyTree:
        state, rows = carry
        batch = take(chunk.index[number], chunk.weight[number], chunk.epoch)
        state, *values = step(state, batch)
        return state, jax.tree.map(lambda row, value: row.at[number].set(value), rows, values)

    zeros = jnp.zeros(len(chunk.index), jnp.float32)
    rows = [Metrics(zeros, zeros, zeros), zeros]
    state, (metrics, norms) = jax.lax.fori_loop(0, chunk.count, run, (state, rows))
    return state, metrics, norms


def eval_step(
    apply: Callable[..., Any], variables: PyTree, batch: Batch, scale: float = 1.0
) -> tuple[Metrics, Float[Array, "B K"]]:
    """Sums of cross-entropy and accuracy over the batch's real examples, and the logits of all."""
    logits = apply(variables, resized(batch.image, scale), train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return Metrics.of(losses, logits, batch.label, batch.weight), logits
