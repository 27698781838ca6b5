"""Objects pasted on other backgrounds, on the device: how pictures taken outdoors will look.

    augment = chain(flip(), affine(), colour(), backgrounds(bank, probability=0.6))

Goes last in a chain, on pictures with the mask of their object as a fourth channel
(`cutout.with_masks`), and leaves three. Same rules as in augment.py: a pure function of one key an
example (clutter comes from the neighbour in the batch, as in `cutmix`). `bank` is u8 [M, T, T, 3]
(bank.py), on the device.
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
Examples = Float[Array, "B ..."]  # pictures, or features of them
Layer = Float[Array, "B S S 4"]  # the light of an object, and its opacity of 0 to 1

ONE = (1, 1, 1)


def backgrounds(
    bank: Bank | None, probability: float = 0.6, clutter: float = 0.3, occlusion: float = 0.3
) -> Augment:
    """Puts the object of a picture before a piece of a background.

    Args:
        bank: without one pictures stay on white, and only lose their mask.
        probability: of a picture to be pasted; others stay as they are.
        clutter: probability that the object of the next picture in the batch is also there, smaller
            and to the side, behind or before. 0: a view depends on the key and the picture alone.
        occlusion: probability that something of the background covers part of the object.
    """
    if bank is None:
        return lambda keys, images: images[..., :3]

    def apply(keys: Keys, images: Images) -> Pasted:
        pasted = uniform(keys, 0, shape=ONE) < probability
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
    """Backgrounds alone, in the place of pictures. None without a bank."""
    if bank is None:
        return None

    def apply(keys: Keys, images: Images) -> Images:
        ground = stored(draw(stream(keys, 1), bank, images.shape[1]))
        return _framed(stream(keys, 3), camera(stream(keys, 2), ground))

    return apply


def outlier_exposure(scenes: Augment | None, probability: float = 0.1) -> Mix | None:
    """Puts one of `scenes` in the place of a picture, of which no class is the right one: its
    target is the same for all (outlier exposure, Hendrycks et al. 2019). None without scenes.
    """
    if scenes is None:
        return None

    def apply(keys: Keys, images: Examples, targets: Targets) -> tuple[Examples, Targets]:
        gone = uniform(keys, 0) < probability
        there = scenes(keys, images)
        wide = gone.reshape(-1, *[1] * (images.ndim - 1))
        return (
            jnp.where(wide, there, images),
            jnp.where(gone[:, None], 1 / targets.shape[-1], targets),
        )

    return apply


def draw(keys: Keys, bank: Bank, side: int) -> Float[Array, "B S S 3"]:
    """A piece of a background for each key: any size from a third of it, mirrored or not, and any
    exposure.
    """
    there = bank.shape[1]
    which = (uniform(keys, 0) * len(bank)).astype(jnp.int32)
    step = jnp.exp(uniform(keys, 1, math.log(0.33), 0.0)) * there / side
    mirror = jnp.where(uniform(keys, 2) < 0.5, -1.0, 1.0)
    slack = (there - 1 - step * (side - 1)) / 2
    offset = uniform(keys, 3, -1, 1, (2,)) * slack[:, None]
    # Rows first and columns then: two short gathers, where `resample` would take four long ones.
    place = jnp.arange(side) - (side - 1) / 2

    def piece(index, step, mirror, offset):
        rows, part = _between(offset[1] + place * step + (there - 1) / 2, there)
        image = bank[index, rows] * (1 - part[:, None, None])
        image += bank[index, rows + 1] * part[:, None, None]  # [S, T, 3]
        columns, part = _between(offset[0] + place * step * mirror + (there - 1) / 2, there)
        return image[:, columns] * (1 - part[:, None]) + image[:, columns + 1] * part[:, None]

    ground = jax.vmap(piece)(which, step, mirror, offset)
    return jnp.clip(ground * jnp.exp(uniform(keys, 4, -0.4, 0.3, ONE)), 0, WHITE)


def _between(place: Float[Array, " S"], there: int) -> tuple[Int[Array, " S"], Float[Array, " S"]]:
    """The pixel before each place, and how far on to the next it is."""
    before = jnp.clip(place.astype(jnp.int32), 0, there - 2)
    return before, jnp.clip(place - before, 0, 1)


def cut(images: Images) -> Layer:
    """Pictures on white with their masks -> their objects alone. The light of an edge is what the
    white behind it did not give, so that none of it comes along.
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
    """Objects turned by up to `rotate` degrees, scaled, at a distance from the centre between
    `nearest` and `furthest` sides, in a light of their own: stronger or weaker, coloured, from a
    side.
    """
    side = layer.shape[1]
    size = jnp.exp(uniform(keys, 0, math.log(smallest), math.log(largest)))
    angle = uniform(keys, 1, -1, 1) * math.radians(rotate)
    where = uniform(keys, 2, 0, 2 * math.pi)
    # Small ones may be anywhere; a large one that is far from the centre would be cut in half.
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


def _where(there: Bool[Array, "B 1 1 1"], layer: Layer) -> Layer:
    return jnp.where(there, layer, 0)


def _covered(
    keys: Keys,
    scene: Pasted,
    ground: Pasted,
    probability: float,
) -> Pasted:
    """The background, upside down, again before one side of the scene, up to a wavy line."""
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
    """White bars above and below, or left and right, of half of the scenes: few photographs are
    square, and `letterbox` will put these bars there.
    """
    side = scene.shape[1]
    bar = uniform(keys, 0, -0.2, 0.2, (1, 1)) * side
    place = jnp.abs(jnp.arange(side) - (side - 1) / 2) > side / 2 - bar  # [B, 1, S]
    lying = uniform(keys, 1, shape=(1, 1)) < 0.6
    inside = jnp.where(lying, place.swapaxes(1, 2), place)[..., None]
    return jnp.where(inside, WHITE, scene)
