"""Training and evaluation steps on batches, as pure functions. The loop compiles them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num, PyTree

from jaxgear.data.batches import Batch, Chunk, take
from jaxgear.program.apply import streams
from jaxgear.training import optim, parts
from jaxgear.training.pseudo_labels import Guess, PseudoLabels, sums
from jaxgear.training.state import Metrics, TrainState

Keys = Key[Array, " B"]  # one per example
Images = Float[Array, "B ..."]  # [B, S, S, 3], or features
Augment = Callable[[Keys, Images], Images]
Mix = Callable[[Keys, Images, Float[Array, "B K"]], tuple[Images, Float[Array, "B K"]]]
Loss = Callable[[Float[Array, "B K"], Float[Array, "B K"]], Float[Array, " B"]]


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
    pseudo_labels: PseudoLabels | None = None,
    plain: Callable[[Images], Images] = lambda images: images[..., :3],
    beside: int = 0,
) -> tuple[TrainState, Metrics, Float[Array, ""]]:
    """One optimizer step: returns the new state, sums over the batch and the gradient norm.

    The loss is the weighted mean over the batch's real examples (weight above 0), plus the term of
    `pseudo_labels` for its last `beside` rows, which have no labels.

    Random choices depend only on (state.key, batch.epoch, batch.index). There is one key per
    example, so an augmented view does not depend on its batch. Dropout folds in `state.step`.

    Args:
        decay: of the moving average, if the state keeps one.
        microbatch: labelled examples per part; must divide the batch. The gradient is summed over
            parts, in the memory of one part. Batch normalisation, `mix` and dropout see one part
            at a time; running statistics are the mean over parts.
        per_example: the network treats each example by itself. On a CPU the gradient is then summed
            over parts that fit in its caches (parts.py).
        plain: images, or their features, as the network takes them without augmentation.
    """
    rows = len(batch.label)
    total, guess = batch.weight[: rows - beside].sum(), None
    if pseudo_labels is not None:
        guess = lambda images: pseudo_labels.label(  # noqa: E731
            state.apply(state.variables, plain(images), train=False), state.step, total, beside
        )
    share = (rows - beside) / rows
    view = functools.partial(_view, state.key, classes, augment, mix, class_weights, guess, share)
    objective = functools.partial(
        _objective, state.apply, loss, guess is not None, total, state.model_state
    )
    dropout = jax.random.fold_in(state.key, state.step)
    gradient = functools.partial(_gradient, view, objective, state.params, per_example)
    if microbatch in (0, rows - beside):
        grads, forward_pass = gradient(batch, dropout)
    else:
        count = (rows - beside) // microbatch
        grads, forward_pass = parts.in_turn(gradient, batch, rows // count, dropout)
        model_state = parts.mean(forward_pass.model_state, count)
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
    guess: Guess | None,
    share: float,
    part: Batch,
) -> tuple[Array, ...]:
    """Augmented images, targets, loss weights, and the weight and label of each example.

    The first rows, a `share` of them, are labelled; `guess` gives the others targets and weights.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, part.epoch), part.index)
    plain = images = part.image.astype(jnp.float32)
    if augment is not None:
        images = augment(jax.vmap(jax.random.fold_in, (0, None))(keys, 0), images)
    weight = part.weight
    if class_weights is not None:
        weight = weight * jnp.asarray(class_weights)[part.label]
    targets = jax.nn.one_hot(part.label, classes)
    count = round(share * len(part.label))
    if mix is not None:
        mixed = jax.vmap(jax.random.fold_in, (0, None))(keys[:count], 1)
        blended = mix(mixed, images[:count], targets[:count])
        images, targets = (
            jnp.concatenate([first, rest[count:]])
            for first, rest in zip(blended, (images, targets), strict=True)
        )
    if guess is not None:
        named, sure = guess(plain[count:])
        targets = jnp.concatenate([targets[:count], named])
        weight = jnp.concatenate([weight[:count], sure])
    return images, targets, weight, part.weight, part.label


def _objective(
    apply: Callable[..., Any],
    loss: Loss,
    without_labels: bool,
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
    losses = loss(logits, targets)
    mean = (losses * weight).sum() / total
    metrics = Metrics.of(losses, logits, label, counted * (label >= 0))
    if without_labels:
        metrics = metrics.replace(pseudo=sums(targets, weight, label))
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
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics, Float[Array, ""]]],
    mesh: Mesh,
    state: TrainState,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    chunk: Chunk,
) -> tuple[TrainState, Metrics, Float[Array, " T"]]:
    """Runs `step` on each batch of a chunk of steps, in one program; takes batches from all images.

    Only the first `chunk.count` rows of the metrics and norms are valid. The count may be anything
    up to T, so the last chunk of an epoch runs the same program.
    """

    def run(number: Int[Array, ""], carry: PyTree) -> PyTree:
        state, rows = carry
        index, weight = chunk.index[number], chunk.weight[number]
        state, *values = step(state, take(mesh, images, labels, index, weight, chunk.epoch))
        return state, jax.tree.map(lambda row, value: row.at[number].set(value), rows, values)

    zeros = jnp.zeros(len(chunk.index), jnp.float32)
    rows = [jax.tree.map(lambda _: zeros, state.totals), zeros]
    state, (metrics, norms) = jax.lax.fori_loop(0, chunk.count, run, (state, rows))
    return state, metrics, norms


def eval_step(
    apply: Callable[..., Any], variables: PyTree, batch: Batch
) -> tuple[Metrics, Float[Array, "B K"]]:
    """Sums of cross-entropy and accuracy over the batch's real examples, and the logits of all."""
    logits = apply(variables, batch.image, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return Metrics.of(losses, logits, batch.label, batch.weight), logits
