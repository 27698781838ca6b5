"""The convolutional network, as a list of layers that reads like its diagram.

    ConvNet([Conv(24), Pool(), Conv(48), Pool(), Dense(64)], classes=12)

Every layer is a Flax module or a function, called as `layer(x)`, and with `train=` (or
`deterministic=`) where it takes that. Ours have float32 variables and compute in the type of what
comes. The network takes pictures as they are stored (RGB, 0 to 255) and normalises them itself, so
that no caller can forget to or do it differently.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxgear.models.cpu import BatchNorm, convolution, max_pool
from jaxgear.program.apply import mode


class ConvNet(nn.Module):
    """Layers in order, then a dense layer of `classes` logits.

    `mean` and `std` normalise pixel values of 0 to 255; the defaults suit pictures on white. Layers
    compute in `dtype`; statistics of batches and logits are float32 whatever it is (Micikevicius et
    al. 2018, "Mixed Precision Training").
    """

    layers: Sequence[Callable[..., jax.Array]]
    classes: int
    mean: float = 204.0
    std: float = 76.5
    dtype: str = "float32"

    def setup(self):
        self.head = nn.Dense(self.classes)

    def __call__(self, images: Num[ArrayLike, "B H W 3"], train: bool) -> Float[Array, "B K"]:
        x = self.features(images, train).astype(jnp.float32)
        return self.head(x.reshape(x.shape[0], -1))

    def features(self, images: Num[ArrayLike, "B H W 3"], train: bool) -> jax.Array:
        """What the last layer before the head puts out: [B, D], or [B, h, w, C]."""
        x = ((jnp.asarray(images, jnp.float32) - self.mean) / self.std).astype(self.dtype)
        for layer in self.layers:
            x = layer(x, **mode(layer, train))
        return x


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU: [B, H, W, Cin] -> [B, H/strides, W/strides,
    features].
    """

    features: int
    kernel: int = 3
    strides: int = 1
    activate: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w F"]:
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.strides,
            use_bias=False,  # the normalisation has one
            dtype=x.dtype,
            conv_general_dilated=convolution.conv_general_dilated,
            name="conv",
        )(x)
        x = BatchNorm(use_running_average=not train, dtype=x.dtype, name="norm")(x)
        return nn.relu(x) if self.activate else x


class Residual(nn.Module):
    """Two convolutions around which the input is added (He et al. 2015): shape unchanged."""

    kernel: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        features = x.shape[-1]
        y = Conv(features, self.kernel, name="conv1")(x, train)
        return x + Conv(features, self.kernel, name="conv2")(y, train)


class Pool(nn.Module):
    """The largest value of each `window` x `window` square: [B, H, W, C] -> [B, H/w, W/w, C].

    Rows and columns that do not fill a window are dropped, as `VALID` padding does.
    """

    window: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w C"]:
        window = min(self.window, x.shape[1], x.shape[2])  # a small map gives at least one value
        return max_pool(x, (window, window), (window, window))


class SpaceToDepth(nn.Module):
    """Squares of pixels become channels: [B, H, W, C] -> [B, H/p, W/p, p*p*C].

    Where `patch` does not divide the side, the last row and column are repeated.

    As a first layer it replaces thin convolutions over a large picture, which no matrix unit can
    use well, by one over a small picture with many channels (Shi et al. 2016, in reverse).
    """

    patch: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        b, height, width, c = x.shape
        p = self.patch
        if height % p or width % p:
            x = jnp.pad(x, ((0, 0), (0, -height % p), (0, -width % p), (0, 0)), mode="edge")
            b, height, width, c = x.shape
        x = x.reshape(b, height // p, p, width // p, p, c).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, height // p, width // p, p * p * c)


class GlobalPool(nn.Module):
    """Mean and maximum over the whole map, side by side: [B, H, W, C] -> [B, 2C]."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B D"]:
        return jnp.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=-1)


class Dense(nn.Module):
    """A fully connected layer and ReLU, of the flattened input: [B, ...] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], train: bool) -> Float[Array, "B F"]:
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.features, dtype=x.dtype, name="dense")(x))


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` in training (Srivastava et al. 2014)."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], train: bool) -> Float[Array, "B ..."]:
        return nn.Dropout(self.rate, deterministic=not train)(x)
