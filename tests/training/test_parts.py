"""Parts of a batch: their gradients add up to that of the batch, and how large they are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgear.data.augment.transforms import cutmix
from jaxgear.data.batches import Batch
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import parts, steps

SIDE, COUNT = 24, 12


class Singly(nn.Module):
    """A network that treats each picture by itself."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Conv(4, (3, 3))(jnp.asarray(images, jnp.float32) / 255))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def batch():
    rng = np.random.default_rng(0)
    return Batch(
        image=jnp.asarray(rng.integers(0, 256, (COUNT, SIDE, SIDE, 3)), jnp.uint8),
        label=jnp.asarray(rng.integers(0, 3, COUNT), jnp.int32),
        weight=jnp.ones(COUNT).at[-1].set(0),
        index=jnp.arange(COUNT, dtype=jnp.int32),
        epoch=jnp.asarray(1, jnp.int32),
    )


def step_of(model, monkeypatch, pictures, per_example=True):
    """A training step that takes so many pictures at a time; and numbers it was traced with."""
    monkeypatch.setattr(parts, "PART_BYTES", pictures * SIDE * SIDE * 3 * 4)
    seen = []
    state = steps.init_state(model, optax.sgd(0.1), batch().image, seed=0)

    def apply(variables, images, **options):
        seen.append(len(images))
        return model.apply(variables, images, **options)

    step = jax.jit(
        lambda state, batch: steps.train_step(
            state,
            batch,
            classes=3,
            loss=steps.smoothed_cross_entropy(0.1),
            mix=cutmix(1.0),
            per_example=per_example,
            class_weights=jnp.array([1.0, 2.0, 0.5]),
        )
    )
    return step(state.replace(apply=apply), batch()), seen


@pytest.mark.parametrize("pictures", [1, 3, 4, 6])
def test_parts_add_up_to_the_batch(monkeypatch, pictures):
    (whole, metrics, norm), seen = step_of(Singly(), monkeypatch, COUNT)
    assert set(seen) == {COUNT}
    (found, same, same_norm), seen = step_of(Singly(), monkeypatch, pictures)
    assert seen.count(pictures) == COUNT // pictures  # and once the whole, for other platforms
    for a, b in zip(
        jax.tree.leaves((whole.params, metrics, norm)),
        jax.tree.leaves((found.params, same, same_norm)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_network_sees_the_whole_batch_unless_the_recipe_says_otherwise(monkeypatch):
    for model in (ConvNet([Conv(4), GlobalPool()], classes=3), Singly()):
        _, seen = step_of(model, monkeypatch, 1, per_example=False)
        assert set(seen) == {COUNT}


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((50, 128, 128, 3), 5),
        ((48, 128, 128, 3), 4),
        ((48, 64, 64, 3), 16),
        ((48, 32, 32, 3), 48),
        ((48, 224, 224, 3), 4),  # at most MOST parts
        ((47, 128, 128, 3), 47),  # no divisor that suits
        ((48, 2048), 48),
    ],
)
def test_size_of_parts(shape, size):
    assert parts.cache_size(jax.ShapeDtypeStruct(shape, jnp.float32)) == size
