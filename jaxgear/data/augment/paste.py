"""Pastes objects on other backgrounds, on the device, to imitate outdoor photographs.

    augment = chain(flip(), affine(), colour(), backgrounds(bank, probability=0.6))

`backgrounds` comes last in a chain. It takes images with the object's mask as a fourth channel
(`composites.with_masks`) and returns three channels. As in transforms.py, a view is a pure function
of the example's key (clutter comes from the neighbour in the batch, as in `cutmix`). `bank` is u8
[M, T, T, 3] (composites/bank.py), on the device.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxgear.data.augment.camera import camera
from jaxgear.data.augment.transforms import (
    WHITE,
    Augment,
    Images,
    Keys,
    Mix,
    Targets,
    resample,
    stored,
    stream,
    uniform,
)

Bank = UInt8[Array, "M T T 3"]
Pasted = Float[Array, "B S S 3"]
Examples = Float[Array, "B ..."]  # images, or features of them
Layer = Float[Array, "B S S 4"]  # premultiplied colour of an object, and its opacity 0 to 1

ONE = (1, 1, 1)


def backgrounds(
    bank: Bank | None, probability: float = 0.6, clutter: float = 0.3, occlusion: float = 0.3
) -> Augment:
    """Pastes the object of an image on a piece of a background.

    Args:
        bank: None: images stay on white and only lose their mask.
        probability: of pasting an image; other images stay unchanged. An image whose mask is empty
            is never pasted.
        clutter: probability of a second object, from the next image in the batch: smaller, off
            centre, behind or in front. With 0 a view depends only on the key and the image.
        occlusion: probability that a piece of the background covers part of the object.
    """
    if bank is None:
        return lambda keys, images: images[..., :3]

    def apply(keys: Keys, images: Images) -> Pasted:
        pasted = uniform(keys, 0, shape=ONE) < probability
        pasted &= images[..., 3:].any(axis=(1, 2, 3), keepdims=True)
        alone = stored(cut(images))
        ground = stored(draw(stream(keys, 1), bank, images.shape[1]))
        scene = ground
        if clutter:
            other = _placed(stream(keys, 2), jnp.roll(alone, 1, axis=0), 0.25, 0.65, 180, 0.3, 0.6)
            other = stored(_where(uniform(keys, 3, shape=ONE) < clutter, other))
            behind = uniform(keys, 4, shape=ONE) < 0.6
            scene = _over(_where(behind, other), scene)
        scene = _over(stored(_placed(stream(keys, 5), alone, 0.55, 1.3, 25, 0.0, 0.25)), scene)
        if clutter:
            scene = _over(_where(~behind, other), scene)
        scene = _covered(stream(keys, 6), scene, ground, occlusion)
        scene = _framed(stream(keys, 8), camera(stream(keys, 7), stored(scene)))
        return jnp.where(pasted, scene, images[..., :3])

    return apply


def scenes(bank: Bank | None) -> Augment | None:
    """Replaces images by backgrounds without objects. None without a bank."""
    if bank is None:
        return None

    def apply(keys: Keys, images: Images) -> Images:
        ground = stored(draw(stream(keys, 1), bank, images.shape[1]))
        return _framed(stream(keys, 3), camera(stream(keys, 2), ground))

    return apply


def outlier_exposure(scenes: Augment | None, probability: float = 0.1) -> Mix | None:
    """Outlier exposure (Hendrycks et al. 2019): replaces images by `scenes`, which have no class.

    The target of a scene is uniform over the classes. None without scenes.
    """
    if scenes is None:
        return None

    def apply(keys: Keys, images: Examples, targets: Targets) -> tuple[Examples, Targets]:
        replaced = uniform(keys, 0) < probability
        outliers = scenes(keys, images)
        wide = replaced.reshape(-1, *[1] * (images.ndim - 1))
        return (
            jnp.where(wide, outliers, images),
            jnp.where(replaced[:, None], 1 / targets.shape[-1], targets),
        )

    return apply


def draw(keys: Keys, bank: Bank, side: int) -> Float[Array, "B S S 3"]:
    """A random piece of a background for each key.

    Its side is a third of the background or more; mirroring and exposure are random.
    """
    size = bank.shape[1]
    index = (uniform(keys, 0) * len(bank)).astype(jnp.int32)
    step = jnp.exp(uniform(keys, 1, math.log(0.33), 0.0)) * size / side
    mirror = jnp.where(uniform(keys, 2) < 0.5, -1.0, 1.0)
    slack = (size - 1 - step * (side - 1)) / 2
    offset = uniform(keys, 3, -1, 1, (2,)) * slack[:, None]
    # Rows first, then columns: two short gathers; `resample` would take four long ones.
    position = jnp.arange(side) - (side - 1) / 2

    def piece(index, step, mirror, offset):
        rows, part = _between(offset[1] + position * step + (size - 1) / 2, size)
        image = bank[index, rows] * (1 - part[:, None, None])
        image += bank[index, rows + 1] * part[:, None, None]  # [S, T, 3]
        columns, part = _between(offset[0] + position * step * mirror + (size - 1) / 2, size)
        return image[:, columns] * (1 - part[:, None]) + image[:, columns + 1] * part[:, None]

    ground = jax.vmap(piece)(index, step, mirror, offset)
    return jnp.clip(ground * jnp.exp(uniform(keys, 4, -0.4, 0.3, ONE)), 0, WHITE)


def _between(
    position: Float[Array, " S"], size: int
) -> tuple[Int[Array, " S"], Float[Array, " S"]]:
    """The pixel before each position, and the fraction of the way to the next pixel."""
    before = jnp.clip(position.astype(jnp.int32), 0, size - 2)
    return before, jnp.clip(position - before, 0, 1)


def cut(images: Images) -> Layer:
    """The objects of images on white with masks.

    Subtracts the white behind soft edges, so that no white fringe remains.
    """
    opacity = images[..., 3:] / 255
    light = jnp.maximum(images[..., :3] - (1 - opacity) * WHITE, 0)
    return jnp.concatenate([light, opacity], axis=-1)


def _placed(
    keys: Keys,
    layer: Layer,
    smallest: float,
    largest: float,
    rotate: float,
    nearest: float,
    furthest: float,
) -> Layer:
    """Objects at a random rotation (up to `rotate` degrees), scale, position and light.

    The distance from the centre is between `nearest` and `furthest`, in sides of the image. The
    light varies in strength, colour and direction.
    """
    side = layer.shape[1]
    size = jnp.exp(uniform(keys, 0, math.log(smallest), math.log(largest)))
    angle = uniform(keys, 1, -1, 1) * math.radians(rotate)
    where = uniform(keys, 2, 0, 2 * math.pi)
    # Small objects may be anywhere; a large object far from the centre would be cut in half.
    reach = jnp.minimum(furthest, 0.1 + jnp.maximum(1 - size, 0) / 2) if not nearest else furthest
    distance = (nearest + (reach - nearest) * uniform(keys, 3)) * side
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    across = jnp.stack([cos, sin], axis=-1) / size[:, None]
    down = jnp.stack([-sin, cos], axis=-1) / size[:, None]
    shift = jnp.stack([jnp.cos(where), jnp.sin(where)], axis=-1) * distance[:, None]
    offset = jnp.stack([(across * shift).sum(-1), (down * shift).sum(-1)], axis=-1)
    moved = jax.vmap(resample, (0, 0, 0, 0, None, None))(
        layer, across, down, offset, jnp.zeros(4), side
    )
    light = jnp.exp(uniform(keys, 4, -0.5, 0.35, ONE) + uniform(keys, 5, -0.12, 0.12, (1, 1, 3)))
    slope = uniform(keys, 6, -0.5, 0.5, (2, 1, 1))
    y, x = jnp.mgrid[:side, :side] / side - 0.5
    shade = (1 + slope[:, 0] * x + slope[:, 1] * y)[..., None]
    return moved * jnp.concatenate([light * shade, jnp.ones_like(shade)], axis=-1)


def _over(layer: Layer, scene: Pasted) -> Pasted:
    return jnp.minimum(layer[..., :3] + (1 - layer[..., 3:]) * scene, WHITE)


def _where(present: Bool[Array, "B 1 1 1"], layer: Layer) -> Layer:
    return jnp.where(present, layer, 0)


def _covered(
    keys: Keys,
    scene: Pasted,
    ground: Pasted,
    probability: float,
) -> Pasted:
    """Covers one edge of the scene with the flipped background, up to a wavy line."""
    side = scene.shape[1]
    y, x = jnp.mgrid[:side, :side] / side - 0.5
    angle = uniform(keys, 0, 0, 2 * math.pi, (1, 1))
    level = uniform(keys, 1, 0.12, 0.45, (1, 1))
    wave = uniform(keys, 2, 0, 0.12, (1, 1))
    pace = uniform(keys, 3, 4, 20, (1, 1))
    ahead = x * jnp.cos(angle) + y * jnp.sin(angle)
    along = y * jnp.cos(angle) - x * jnp.sin(angle)
    edge = ahead - level + wave * jnp.sin(pace * along)
    cover = jnp.clip(edge * side / 2, 0, 1) * (uniform(keys, 4, shape=(1, 1)) < probability)
    return scene + (ground[:, ::-1] - scene) * cover[..., None]


def _framed(keys: Keys, scene: Pasted) -> Pasted:
    """Adds white bars, top and bottom or left and right, to half of the scenes.

    Few photographs are square, and `letterbox` adds such bars to them.
    """
    side = scene.shape[1]
    bar = uniform(keys, 0, -0.2, 0.2, (1, 1)) * side
    bars = jnp.abs(jnp.arange(side) - (side - 1) / 2) > side / 2 - bar  # [B, 1, S]
    landscape = uniform(keys, 1, shape=(1, 1)) < 0.6
    white = jnp.where(landscape, bars.swapaxes(1, 2), bars)[..., None]
    return jnp.where(white, WHITE, scene)
