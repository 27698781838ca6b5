"""Augmentations are pure, use one key per example, and fill with white."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgear.data.augment import transforms as augment

SIDE = 16
ALL = {
    "flip": augment.flip(vertical=True),
    "affine": augment.affine(),
    "colour": augment.colour(swap=0.5),
    "erase": augment.erase(probability=1.0),
    "chain": augment.chain(augment.flip(), augment.affine(), augment.colour(), augment.erase()),
}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(0, 255, (8, SIDE, SIDE, 3)), jnp.float32)


@pytest.fixture
def keys():
    return jax.random.split(jax.random.key(0), 8)


@pytest.mark.parametrize("name", ALL)
def test_view_depends_on_its_key_and_picture_alone(name, images, keys):
    apply = jax.jit(ALL[name])
    together = apply(keys, images)
    order = np.array([5, 0, 7, 2, 1, 6, 3, 4])
    np.testing.assert_allclose(apply(keys[order], images[order]), together[order], atol=1e-3)
    np.testing.assert_array_equal(apply(keys, images), together)
    other = apply(jax.random.split(jax.random.key(1), 8), images)
    assert not np.array_equal(other, together)
    assert together.shape == images.shape
    assert float(together.min()) >= 0
    assert float(together.max()) <= 255 + 1e-3


def test_flip_mirrors_about_half(images):
    keys = jax.random.split(jax.random.key(3), 8)
    flipped = np.asarray(augment.flip()(keys, images))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, images, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 0 < sum(mirrored) < 8


def test_affine_of_nothing_is_the_identity(images, keys):
    unmoved = augment.affine(rotate=0, scale=0, stretch=0, shift=0)(keys, images)
    np.testing.assert_allclose(unmoved, images, atol=1e-3)


WHITE = jnp.full(3, 255.0)


def test_resample_moves_by_pixels_and_fills_with_white(images):
    across, down = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    moved = augment.resample(images[0], across, down, jnp.array([3.0, -2.0]), WHITE, SIDE)
    np.testing.assert_allclose(moved[2:, :-3], images[0][:-2, 3:], atol=1e-3)
    assert float(moved[:2].min()) == 255
    assert float(moved[:, -3:].min()) == 255


def test_a_quarter_turn_is_rot90(images):
    turned = augment.resample(
        images[0], jnp.array([0.0, 1.0]), jnp.array([-1.0, 0.0]), jnp.zeros(2), WHITE, SIDE
    )
    np.testing.assert_allclose(turned, jnp.rot90(images[0], -1), atol=1e-2)


def test_colour_leaves_white_white_without_tint(keys):
    white = jnp.full((8, SIDE, SIDE, 3), 255.0)
    np.testing.assert_allclose(augment.colour(tint=0)(keys, white), white, atol=1e-3)


def test_colour_swap_permutes_channels(images, keys):
    plain = {"depth": 0.0, "saturation": 0.0, "tint": 0.0}
    swapped = np.asarray(augment.colour(**plain, swap=1.0)(keys, images))
    np.testing.assert_allclose(np.sort(swapped, axis=-1), np.sort(images, axis=-1), atol=1e-3)
    assert not np.allclose(swapped, images, atol=1)


def test_erase_covers_one_rectangle_with_one_colour(images, keys):
    erased = np.asarray(augment.erase(probability=1.0)(keys, images))
    changed = (erased != np.asarray(images)).any(axis=-1)  # [B, S, S]
    for picture, mask in zip(erased, changed, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns) > 0
        assert len(np.unique(picture[mask], axis=0)) == 1
    np.testing.assert_array_equal(augment.erase(probability=0.0)(keys, images), images)


@pytest.mark.parametrize("mix", [augment.mixup(0.4), augment.cutmix(1.0)])
def test_targets_are_mixed_as_the_pictures_are(mix, keys):
    """Images of constant value v = class: the mean of a mixed image shows its target."""
    classes = jnp.arange(8)
    images = jnp.broadcast_to(classes[:, None, None, None], (8, SIDE, SIDE, 3)).astype(jnp.float32)
    mixed, targets = mix(keys, images, jax.nn.one_hot(classes, 8))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets @ jnp.arange(8.0), rtol=1e-4)
    assert not np.array_equal(targets, jax.nn.one_hot(classes, 8))
