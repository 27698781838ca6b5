"""Pure steps: gradients against an oracle, padding that counts nowhere, randomness by example."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxgear.data.augment.transforms import flip, mixup
from jaxgear.data.batches import Batch, resized
from jaxgear.models.convnet import Conv, ConvNet, Dropout, GlobalPool
from jaxgear.training import steps

K = 3


class Linear(nn.Module):
    """Logits that are linear in the pixels: its gradient can be written down."""

    @nn.compact
    def __call__(self, images, train):
        x = jnp.asarray(images, jnp.float32) / 255
        return nn.Dense(K, name="head")(x.reshape(x.shape[0], -1))


def make_batch(n=6, side=4, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    return Batch(
        image=jnp.asarray(rng.integers(0, 256, (n, side, side, 3)), jnp.uint8),
        label=jnp.asarray(rng.integers(0, K, n), jnp.int32),
        weight=jnp.ones(n) if weight is None else jnp.asarray(weight, jnp.float32),
        index=jnp.arange(n, dtype=jnp.int32),
        epoch=jnp.asarray(1, jnp.int32),
    )


def make_state(model, batch, tx=None, average=False):
    return steps.init_state(model, tx or optax.sgd(0.1), batch.image, seed=0, average=average)


def options(**more):
    return {"classes": K, "loss": steps.smoothed_cross_entropy(0.0)} | more


def assert_close(a, b, rtol=0.0, atol=0.0):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for one, other in leaves:
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_one_step_of_sgd_is_the_gradient_of_the_mean_cross_entropy():
    batch = make_batch()
    state = make_state(Linear(), batch)
    after, metrics, norm = steps.train_step(state, batch, **options())
    x = np.asarray(batch.image, np.float32).reshape(6, -1) / 255
    head = state.params["head"]
    probs = jax.nn.softmax(x @ head["kernel"] + head["bias"])
    error = (probs - jax.nn.one_hot(batch.label, K)) / 6
    expected = {"kernel": x.T @ error, "bias": error.sum(axis=0)}
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            after.params["head"][name], head[name] - 0.1 * gradient, rtol=1e-5, atol=1e-6
        )
    assert float(norm) == pytest.approx(float(optax.tree.norm(expected)), rel=1e-5)
    loss = -np.log(np.asarray(probs)[np.arange(6), np.asarray(batch.label)]).sum()
    assert float(metrics.loss) == pytest.approx(loss, rel=1e-5)
    assert float(metrics.count) == 6
    assert int(after.step) == 1


def test_padding_counts_nowhere():
    whole = make_batch(4)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, x[:2]]) if x.ndim else x, whole)
    padded = padded.replace(weight=jnp.array([1.0, 1, 1, 1, 0, 0]))
    state = make_state(Linear(), whole)
    (a, m, _), (b, p, _) = (steps.train_step(state, x, **options()) for x in (whole, padded))
    assert_close((a.params, m), (b.params, p), rtol=1e-5, atol=1e-7)
    (m, _), (p, _) = (steps.eval_step(state.apply, state.variables, x) for x in (whole, padded))
    assert_close(m, p, rtol=1e-6)


def test_metrics_of_batches_add_up_to_those_of_the_whole():
    batch = make_batch(6)
    state = make_state(Linear(), batch)
    parts = [
        jax.tree.map(lambda x, s=s: x[s] if x.ndim else x, batch)
        for s in (slice(0, 4), slice(4, 6))
    ]
    whole, _ = steps.eval_step(state.apply, state.variables, batch)
    total = steps.eval_step(state.apply, state.variables, parts[0])[0]
    total += steps.eval_step(state.apply, state.variables, parts[1])[0]
    assert_close(whole, total, rtol=1e-6)


def test_class_weights_weigh_the_loss():
    batch = make_batch()
    state = make_state(Linear(), batch)
    only_first = jnp.array([1.0, 0.0, 0.0])
    after, _, _ = steps.train_step(state, batch, **options(class_weights=only_first))
    masked = batch.replace(weight=(batch.label == 0).astype(jnp.float32))
    expected, _, _ = steps.train_step(state, masked, **options())
    share = float(masked.weight.mean())  # a weighted mean is still over the whole batch
    moved = jax.tree.map(lambda a, b: a - b, after.params, state.params)
    alone = jax.tree.map(lambda a, b: (a - b) * share, expected.params, state.params)
    assert_close(moved, alone, rtol=1e-3, atol=1e-6)


def test_step_is_pure():
    batch = make_batch(side=8)
    model = ConvNet([Conv(4), Dropout(0.5), GlobalPool()], classes=K)
    state = make_state(model, batch, optax.adam(1e-2), average=True)
    step = jax.jit(partial(steps.train_step, **options(augment=flip(), mix=mixup(0.3))))
    one, two = step(state, batch), step(state, batch)
    assert_close(one[0].params, two[0].params)
    assert_close(one[0].averaged, two[0].averaged)
    later = state.replace(step=state.step + 1)  # another dropout mask
    assert not np.array_equal(
        one[0].params["head"]["kernel"], step(later, batch)[0].params["head"]["kernel"]
    )


def test_views_depend_on_epoch_and_index_not_on_the_batch():
    """Seen by an augmentation that hands out its keys, whatever batch a picture is in."""
    seen = []

    def spy(keys, images):
        seen.append(np.asarray(jax.random.key_data(keys)))
        return images

    batch = make_batch(6)
    state = make_state(Linear(), batch)
    order = np.array([3, 1, 5])
    part = jax.tree.map(lambda x: x[order] if x.ndim else x, batch)
    for one in (batch, part, batch.replace(epoch=batch.epoch + 1)):
        steps.train_step(state, one, **options(augment=spy))
    np.testing.assert_array_equal(seen[0][order], seen[1])
    assert not (seen[0] == seen[2]).all(axis=1).any()
    assert len(np.unique(seen[0], axis=0)) == 6


def test_average_follows_the_parameters_and_is_what_is_evaluated():
    batch = make_batch()
    state = make_state(Linear(), batch, average=True)
    after, _, _ = steps.train_step(state, batch, **options(decay=0.9))
    rate = min(0.9, 1 / 10)
    expected = jax.tree.map(
        lambda old, new: rate * old + (1 - rate) * new, state.params, after.params
    )
    assert_close(after.averaged["params"], expected, rtol=1e-5, atol=1e-7)
    assert after.variables is after.averaged
    plain = make_state(Linear(), batch)
    assert plain.variables["params"] is plain.params


def test_evaluation_counts_right_answers():
    batch = make_batch(side=8)
    model = ConvNet([Conv(4), GlobalPool()], classes=K)
    state = make_state(model, batch)
    metrics, logits = steps.eval_step(state.apply, state.variables, batch)
    assert float(metrics.correct) == float((logits.argmax(axis=1) == batch.label).sum())


@pytest.mark.parametrize(("scale", "side"), [(0.5, 8), (0.75, 12)])
def test_resized_is_pillows_antialiased_resize(scale, side):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1)).astype(np.uint8)
    found = resized(jnp.asarray(images), scale)
    for image, ours in zip(images, found, strict=True):
        image = Image.fromarray(image[..., 0].astype(np.float32))
        theirs = image.resize((side, side), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours[..., 0], theirs, atol=1e-3)


@pytest.mark.parametrize("microbatch", [0, 3])
def test_the_network_sees_images_of_the_wanted_size(microbatch):
    """The same as if the images had been given so."""
    batch = make_batch(side=8)
    model = ConvNet([Conv(4), GlobalPool()], classes=K)
    state = make_state(model, batch)
    after, metrics, _ = steps.train_step(state, batch, **options(scale=0.5, microbatch=microbatch))
    small = batch.replace(image=resized(batch.image, 0.5))
    assert small.image.shape == (6, 4, 4, 3)
    expected, theirs, _ = steps.train_step(state, small, **options(microbatch=microbatch))
    assert_close(after.params, expected.params, atol=1e-6)
    assert_close(metrics, theirs, rtol=1e-6)
    assert_close(
        steps.eval_step(state.apply, state.variables, batch, 0.5),
        steps.eval_step(state.apply, state.variables, small),
        rtol=1e-6,
    )


def test_label_smoothing_agrees_with_its_formula():
    logits, targets = jnp.array([[2.0, 0.0, -1.0]]), jnp.array([[1.0, 0.0, 0.0]])
    logp = jax.nn.log_softmax(logits)[0]
    expected = -(0.9 * logp[0] + 0.1 * logp.mean())
    assert float(steps.smoothed_cross_entropy(0.1)(logits, targets)[0]) == pytest.approx(
        float(expected)
    )


class PerPicture(nn.Module):
    """A network that treats each picture by itself: convolutions, no statistics."""

    @nn.compact
    def __call__(self, images, train):
        x = jnp.asarray(images, jnp.float32) / 255
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        return nn.Dense(K, name="head")(x.mean(axis=(1, 2)))


@pytest.mark.parametrize("microbatch", [1, 3, 4, 12])
def test_parts_add_up_to_the_large_batch(microbatch):
    """Padding, class weights, averages and augmentation included."""
    batch = make_batch(12, weight=[1] * 9 + [0] * 3)
    state = make_state(PerPicture(), batch, optax.sgd(0.1, momentum=0.9), average=True)
    more = options(augment=flip(), class_weights=jnp.array([0.5, 1.0, 2.0]))
    step = jax.jit(lambda state, part: steps.train_step(state, batch, microbatch=part, **more),
                   static_argnums=1)  # fmt: skip
    whole, in_parts = step(state, 0), step(state, microbatch)
    assert_close((whole[0].params, whole[0].averaged), (in_parts[0].params, in_parts[0].averaged),
                 atol=1e-7)  # fmt: skip
    assert_close(whole[1:], in_parts[1:], rtol=1e-5)
    assert float(in_parts[1].count) == 9


def test_statistics_of_parts_are_their_mean():
    batch = make_batch(8)
    state = make_state(ConvNet([Conv(4), GlobalPool()], classes=K), batch)
    after, *_ = steps.train_step(state, batch, microbatch=4, **options())
    halves = []
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        half = jax.tree.map(lambda x, rows=rows: x[rows] if x.ndim else x, batch)
        halves.append(steps.train_step(state, half, **options())[0].model_state)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    assert_close(after.model_state, mean, rtol=1e-5)


def test_parts_need_less_memory():
    batch = make_batch(64, side=32)
    state = make_state(ConvNet([Conv(16), Conv(16), GlobalPool()], classes=K), batch)

    def memory(microbatch):
        step = jax.jit(partial(steps.train_step, microbatch=microbatch, **options()))
        return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    assert memory(8) < memory(0) / 3
