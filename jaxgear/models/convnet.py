"""A convolutional network as a list of layers that reads like its diagram.

    ConvNet([Conv(24), Pool(), Conv(48), Pool(), Dense(64)], classes=12)

Every layer is a Flax module or a function. It is called as `layer(x)`, with `train=` (or
`deterministic=`) if it takes that. The layers here have float32 variables and compute in the dtype
of their input. The network takes stored images (RGB, 0 to 255) and normalises them itself, so no
caller can forget it.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxgear.models.cpu import BatchNorm, convolution, global_max, max_pool
from jaxgear.program.apply import mode


class ConvNet(nn.Module):
    """Layers in order, then a dense layer of `classes` logits.

    >>> layers = jaxgear.layers
    >>> model = jaxgear.ConvNet([layers.Conv(8), layers.Pool(), layers.Dense(16)], classes=12)
    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> logits, variables = model.init_with_output(jax.random.key(0), images, train=False)
    >>> logits.shape
    (2, 12)

    `mean` and `std` normalise pixel values of 0 to 255; the defaults suit images on white. Layers
    compute in `dtype`. Batch statistics and logits are always float32 (Micikevicius et al. 2018,
    "Mixed Precision Training").
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
        """The output of the last layer before the head: [B, D] or [B, h, w, C]."""
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
            use_bias=False,  # the normalisation has a bias
            dtype=x.dtype,
            conv_general_dilated=convolution.conv_general_dilated,
            name="conv",
        )(x)
        x = BatchNorm(use_running_average=not train, dtype=x.dtype, name="norm")(x)
        return nn.relu(x) if self.activate else x


class Residual(nn.Module):
    """Two convolutions plus a skip connection (He et al. 2015); keeps the shape."""

    kernel: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        features = x.shape[-1]
        y = Conv(features, self.kernel, name="conv1")(x, train)
        return x + Conv(features, self.kernel, name="conv2")(y, train)


class Pool(nn.Module):
    """Max pooling over `window` x `window` squares: [B, H, W, C] -> [B, H/w, W/w, C].

    Drops rows and columns that do not fill a window, as `VALID` padding does.
    """

    window: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w C"]:
        window = min(self.window, x.shape[1], x.shape[2])  # so a small map gives at least one value
        return max_pool(x, (window, window), (window, window))


class SpaceToDepth(nn.Module):
    """Turns squares of pixels into channels: [B, H, W, C] -> [B, H/p, W/p, p*p*C].

    Repeats the last row and column if `patch` does not divide the size.

    As a first layer it makes a large image with few channels, which no matrix unit uses well, into
    a small image with many channels (the reverse of Shi et al. 2016).
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
    """Mean and maximum over the whole map, concatenated: [B, H, W, C] -> [B, 2C]."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B D"]:
        return jnp.concatenate([x.mean(axis=(1, 2)), global_max(x)], axis=-1)


class Dense(nn.Module):
    """Flattens, then a fully connected layer and ReLU: [B, ...] -> [B, features]."""

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
