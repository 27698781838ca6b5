"""Effects of light, air, lens, sensor and file format: (keys, images) -> images, on the device.

Images are float32 [B, S, S, 3], RGB, 0 to 255, as in transforms.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgear.data.augment.transforms import WHITE, Images, Keys, stored, uniform

ONE = (1, 1, 1)

# Quantisation of luminance at quality 50 (ITU-T T.81, table K.1).
_TABLE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55
14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
"""
_NOISE = 64  # extra rows and columns of the noise sheet: the range of an image's offset in it


def camera(keys: Keys, scene: Images) -> Images:
    """Adds haze, exposure, colour, blur, noise and JPEG blocks, each from none to strong."""
    haze = uniform(keys, 0, 0, 1, ONE) ** 3 * 0.5
    tone = uniform(keys, 1, 150, 255, ONE)
    x = scene + (tone - scene) * haze
    x = x * jnp.exp(uniform(keys, 2, -0.3, 0.25, ONE) + uniform(keys, 3, -0.1, 0.1, (1, 1, 3)))
    grey = x.mean(axis=-1, keepdims=True)
    x = jnp.clip(grey + (x - grey) * uniform(keys, 4, 0.6, 1.3, ONE), 0, WHITE)
    x = _blurred(stored(x), 0.1 + uniform(keys, 5) ** 2 * 2.5)
    x = stored(x + _noise(keys, x) * uniform(keys, 6, shape=ONE) ** 2 * 14)
    return jnp.clip(_blocks(x, jnp.exp(uniform(keys, 7, -2.5, 0.5, ONE))), 0, WHITE)


def _blurred(x: Images, sigma: Float[Array, " B"]) -> Images:
    """Gaussian blur of `sigma` pixels, one per example, as matrix products."""
    place = jnp.arange(x.shape[1], dtype=jnp.float32)
    kernel = jnp.exp(-(((place[:, None] - place) / sigma[:, None, None]) ** 2) / 2)
    kernel /= kernel.sum(axis=-1, keepdims=True)  # [B, S, S]
    across = jnp.einsum("bjv,bivc->bijc", kernel, x)
    return jnp.einsum("biu,bujc->bijc", kernel, across)


def _noise(keys: Keys, x: Images) -> Images:
    """A random window of one fixed sheet of normal noise.

    Fresh random numbers for every pixel would cost more than all other effects.
    """
    side = x.shape[1]
    sheet = np.random.default_rng(0).normal(size=(side + _NOISE, side + _NOISE, 3))
    sheet = jnp.asarray(sheet, jnp.float32)
    start = (uniform(keys, 8, 0, _NOISE, (2,))).astype(jnp.int32)
    window = lambda at: jax.lax.dynamic_slice(sheet, (at[0], at[1], 0), (side, side, 3))  # noqa: E731
    return jax.vmap(window)(start)


def _blocks(x: Images, coarse: Float[Array, "B 1 1 1"]) -> Images:
    """JPEG's quantisation of 8 x 8 blocks, `coarse` times as coarse as quality 50.

    All channels use the luminance table. Rows and columns after the last whole block stay as is.
    """
    batch, side = x.shape[0], x.shape[1] // 8 * 8
    if not side:
        return x
    n = np.arange(8)
    basis = np.cos(np.pi * (2 * n + 1) * n[:, None] / 16) / 2
    basis[0] /= np.sqrt(2)
    whole = jnp.asarray(np.kron(basis, basis), jnp.float32)  # [64 frequencies, 64 pixels]
    table = jnp.asarray(np.array(_TABLE.split(), np.float32)) * coarse  # [B, 1, 1, 64]
    blocks = x[:, :side, :side].reshape(batch, side // 8, 8, side // 8, 8, 3)
    blocks = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(batch, -1, 3, 64)
    rounded = jnp.round(blocks @ whole.T / table) * table @ whole
    rounded = rounded.reshape(batch, side // 8, side // 8, 3, 8, 8).transpose(0, 1, 4, 2, 5, 3)
    return x.at[:, :side, :side].set(rounded.reshape(batch, side, side, 3))
