"""Augmentation on the device: (keys, images) -> images, whole batches, inside the compiled step.

Images are float32 [B, S, S, 3], RGB, 0 to 255, or [B, S, S, 4] with the object's mask
(data/composites/masks.py) as a fourth channel, which moves with the image. Each example has its own
key, so its view is a pure function of (seed, epoch, index). The public functions return such
augmentations:

    augment = chain(flip(), affine(rotate=15, scale=0.25), colour())

`mixup` and `cutmix` also blend the targets; pass them to the step as `mix`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

Keys = Key[Array, " B"]  # one per example
Images = Float[Array, "B S S C"]
Targets = Float[Array, "B K"]  # one-hot, or a blend of two
Augment = Callable[[Keys, Images], Images]
Mix = Callable[[Keys, Images, Targets], tuple[Images, Targets]]

WHITE = 255.0


def chain(*augments: Augment) -> Augment:
    """Applies augmentations in order, each with its own stream of keys."""

    def apply(keys: Keys, images: Images) -> Float[Array, "B S S _"]:  # the last may drop masks
        for position, augment in enumerate(augments):
            images = stored(augment(stream(keys, position), images))
        return images

    return apply


def flip(vertical: bool = False) -> Augment:
    """Mirrors left-right half of the time; also upside down if `vertical`."""

    def apply(keys: Keys, images: Images) -> Images:
        mirror = uniform(keys, 0, shape=(1, 1, 1)) < 0.5
        images = jnp.where(mirror, images[:, :, ::-1], images)
        if vertical:
            mirror = uniform(keys, 1, shape=(1, 1, 1)) < 0.5
            images = jnp.where(mirror, images[:, ::-1], images)
        return images

    return apply


def affine(
    rotate: float = 15.0, scale: float = 0.25, stretch: float = 0.1, shift: float = 0.08
) -> Augment:
    """Random rotation, scale, aspect and position, bilinear; new margins are white.

    `rotate` is in degrees, either way. `scale` and `stretch` are natural logarithms of the largest
    factors. `shift` is a fraction of the image's side.
    """

    def apply(keys: Keys, images: Images) -> Images:
        angle = uniform(keys, 0, -1, 1) * math.radians(rotate)
        size = jnp.exp(uniform(keys, 1, -scale, scale))
        aspect = jnp.exp(uniform(keys, 2, -stretch, stretch))
        offset = uniform(keys, 3, -shift, shift, shape=(2,)) * images.shape[1]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # Maps new coordinates to old ones: rotate back, then scale back.
        across = jnp.stack([cos, sin], axis=-1) / (size * aspect)[:, None]
        down = jnp.stack([-sin, cos], axis=-1) * (aspect / size)[:, None]
        outside = jnp.array([WHITE, WHITE, WHITE, 0.0])[: images.shape[-1]]  # white, without object
        return jax.vmap(resample, (0, 0, 0, 0, None, None))(
            images, across, down, offset, outside, images.shape[1]
        )

    return apply


def resample(
    image: Float[Array, "S S C"],
    across: Float[Array, " 2"],
    down: Float[Array, " 2"],
    offset: Float[Array, " 2"],
    outside: Float[Array, " C"],
    side: int,
) -> Float[Array, "T T C"]:
    """[side, side, C]: `image` sampled bilinearly under an affine map.

    The pixel at (x, y) reads from (across . (x, y) + offset[0], down . (x, y) + offset[1]); both
    are relative to the image centres. Beyond its border the image has the value `outside`.
    """
    size = image.shape[0]
    centre = (size - 1) / 2
    y, x = jnp.mgrid[:side, :side] - (side - 1) / 2
    # A border of one pixel serves all reads outside of the image.
    padded = jnp.broadcast_to(outside, (size + 2, size + 2, image.shape[-1]))
    padded = padded.at[1:-1, 1:-1].set(image).reshape(-1, image.shape[-1])
    u = jnp.clip(across[0] * x + across[1] * y + offset[0] + centre, -1, size) + 1
    v = jnp.clip(down[0] * x + down[1] * y + offset[1] + centre, -1, size) + 1
    left = jnp.minimum(u.astype(jnp.int32), size)
    top = jnp.minimum(v.astype(jnp.int32), size)
    du, dv = (u - left)[..., None], (v - top)[..., None]
    width = size + 2
    corner = top * width + left

    def pixel(step: int) -> Float[Array, "T T C"]:
        return padded[corner + step]

    above = pixel(0) * (1 - du) + pixel(1) * du
    below = pixel(width) * (1 - du) + pixel(width + 1) * du
    return above * (1 - dv) + below * dv


def colour(
    depth: float = 0.3, saturation: float = 0.6, tint: float = 0.06, swap: float = 0.0
) -> Augment:
    """Random colour changes relative to white: only `tint` changes a white background.

    Args:
        depth: natural logarithm of the largest factor on the distance from white, either way.
        saturation: largest change of saturation, either way from 1.
        tint: largest amount added to each channel, as a fraction of 255.
        swap: probability of permuting the channels, which turns red gear blue or green.
    """
    orders = jnp.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])

    def apply(keys: Keys, images: Images) -> Images:
        shape = (1, 1, 1)
        images, mask = images[..., :3], images[..., 3:]
        x = WHITE - (WHITE - images) * jnp.exp(uniform(keys, 0, -depth, depth, shape))
        grey = x.mean(axis=-1, keepdims=True)
        x = grey + (x - grey) * uniform(keys, 1, 1 - saturation, 1 + saturation, shape)
        x = x + uniform(keys, 2, -tint, tint, (1, 1, 3)) * WHITE
        if swap:
            order = orders[(uniform(keys, 3) * 6).astype(jnp.int32)]  # [B, 3]
            # A product with a permutation matrix fuses with its neighbours; a gather does not.
            matrix = jax.nn.one_hot(order, 3)[:, None, None]  # [B, 1, 1, new, old]
            swapped = sum(x[..., old, None] * matrix[..., old] for old in range(3))
            x = jnp.where(uniform(keys, 4, shape=shape) < swap, swapped, x)
        return jnp.concatenate([jnp.clip(x, 0, WHITE), mask], axis=-1)

    return apply


def erase(probability: float = 0.5, smallest: float = 0.1, largest: float = 0.4) -> Augment:
    """Covers a rectangle with one random colour (Zhong et al. 2017).

    `smallest` and `largest` bound its sides, as fractions of the image's side.
    """

    def apply(keys: Keys, images: Images) -> Images:
        inside = _rectangles(keys, images.shape[1], smallest, largest)[..., None]
        inside &= uniform(keys, 2, shape=(1, 1, 1)) < probability
        patch = uniform(keys, 3, 0, WHITE, (1, 1, 3))
        if images.shape[-1] == 4:  # the patch is part of the object
            patch = jnp.pad(patch, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255.0)
        return jnp.where(inside, patch, images)

    return apply


def one_view() -> Augment:
    """Picks one of V precomputed views of each example: [B, V, ...] -> [B, ...]."""
    return lambda keys, views: jax.vmap(jax.random.choice)(keys, views)


def one_of(rows: Float[ArrayLike, "M ..."]) -> Augment:
    """Replaces each example by a random one of `rows`."""
    return lambda keys, _: jax.vmap(jax.random.choice, (0, None))(keys, rows)


def mixup(alpha: float = 0.2) -> Mix:
    """Blends each image and target with its neighbour's in the batch (Zhang et al. 2018)."""

    def apply(keys: Keys, images: Images, targets: Targets) -> tuple[Images, Targets]:
        share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
        share = jnp.maximum(share, 1 - share)
        return (
            _blend(images, jnp.roll(images, 1, axis=0), share),
            _blend(targets, jnp.roll(targets, 1, axis=0), share),
        )

    return apply


def cutmix(probability: float = 0.5, smallest: float = 0.2, largest: float = 0.6) -> Mix:
    """Pastes a rectangle of the batch neighbour; blends targets by area (Yun et al. 2019)."""

    def apply(keys: Keys, images: Images, targets: Targets) -> tuple[Images, Targets]:
        inside = _rectangles(keys, images.shape[1], smallest, largest)
        inside &= uniform(keys, 2, shape=(1, 1)) < probability
        pasted = jnp.where(inside[..., None], jnp.roll(images, 1, axis=0), images)
        share = 1 - inside.mean(axis=(1, 2))
        return pasted, _blend(targets, jnp.roll(targets, 1, axis=0), share)

    return apply


def _rectangles(keys: Keys, side: int, smallest: float, largest: float) -> Bool[Array, "B S S"]:
    """One rectangle per example, with a random centre, clipped at the image's border."""
    centre = uniform(keys, 0, 0, side, (2, 1))
    half = uniform(keys, 1, smallest, largest, (2, 1)) * side / 2
    near = jnp.abs(jnp.arange(side) - centre) < half  # [B, 2, S]
    return near[:, 0, :, None] & near[:, 1, None, :]


def _blend(a: jax.Array, b: jax.Array, share: Float[Array, " B"]) -> jax.Array:
    share = share.reshape(-1, *[1] * (a.ndim - 1))
    return a * share + b * (1 - share)


def stored(images: Images) -> Images:
    """The same images, materialised in memory on a CPU.

    XLA fuses one augmentation into the next, which then recomputes it for every value it reads:
    affine and colour took 156 ms a batch in one loop and 39 ms in two. XLA's CPU compiler drops
    `optimization_barrier` before fusion, but keeps a branch with an unknown condition.
    """

    def store(images: Images) -> Images:
        finite = images[0, 0, 0, 0] < jnp.inf
        return jax.lax.cond(finite, lambda x: x, lambda x: x + jnp.nan, images)

    return jax.lax.platform_dependent(images, cpu=store, default=lambda x: x)


def stream(keys: Keys, number: int) -> Keys:
    """Keys of the independent stream `number`, one per example."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def uniform(
    keys: Keys, number: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()
) -> Float[Array, "B ..."]:
    """One draw of `shape` per example from stream `number`."""
    draw = lambda key: jax.random.uniform(key, shape, minval=low, maxval=high)  # noqa: E731
    return jax.vmap(draw)(stream(keys, number))
