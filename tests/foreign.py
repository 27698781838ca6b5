"""Networks and layers from outside jaxgear, as a researcher may bring them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from jaxgear.models.convnet import Conv, ConvNet, GlobalPool, Residual


class SqueezeExcite(nn.Module):
    """A user's own layer, for use between ours (Hu et al. 2018)."""

    @nn.compact
    def __call__(self, x, train):
        squeezed = nn.relu(nn.Dense(4)(x.mean(axis=(1, 2))))
        return x * nn.sigmoid(nn.Dense(x.shape[-1])(squeezed))[:, None, None]


class Plain(nn.Module):
    """A network that takes pixels of 0 to 255 and has no argument for training."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = 1 - x / 255
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class Normed(nn.Module):
    """Flax's own normalisation and dropout, switched by `deterministic`."""

    classes: int
    norm: str

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Conv(8, (3, 3), strides=2)(x / 255)
        if self.norm == "batch":
            x = nn.BatchNorm(use_running_average=deterministic)(x)
        elif self.norm == "group":
            x = nn.GroupNorm(4)(x)
        else:
            x = nn.LayerNorm()(x)
        x = nn.Dropout(0.2, deterministic=deterministic)(nn.relu(x))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class Spectral(nn.Module):
    """Kernels of spectral norm 1 (Miyato et al. 2018), with a collection that training updates."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        conv = nn.SpectralNorm(nn.Conv(8, (3, 3), strides=2), collection_name="spectral")
        x = nn.relu(conv(x / 255, update_stats=train))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class Counting(nn.Module):
    """Its own variables, an integer counter and a random key; adds noise in training."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("counter", "seen", lambda: jnp.zeros((), jnp.int32))
        salt = self.variable("salt", "key", lambda: jax.random.key(7))
        if train:
            seen.value = seen.value + 1
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x / 255))
        x = x * (1 + 0.1 * jax.random.uniform(salt.value)) + 0.01 * seen.value
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class Attention(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021): no map for Grad-CAM."""

    classes: int

    @nn.compact
    def __call__(self, x, is_training):
        x = nn.Conv(16, (4, 4), strides=(4, 4))(x / 255)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        place = self.param("place", nn.initializers.normal(0.02), x.shape[1:])
        x = x + place
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x = nn.Dropout(0.1, deterministic=not is_training)(nn.LayerNorm()(x))
        return nn.Dense(self.classes)(x.mean(axis=1))


class Bare(nn.Module):
    """A network without a dense layer: its logits are means of a map."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x / 255))
        return 2 * nn.Conv(self.classes, (1, 1))(x).mean(axis=(1, 2))


class Boxed(nn.Module):
    """Parameters in Flax's metadata boxes, a dense layer without bias, and shared weights."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        kernel = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None, None, "data"))
        conv = nn.Conv(8, (3, 3), kernel_init=kernel)
        x = conv(jnp.pad(x / 255, ((0, 0), (0, 0), (0, 0), (0, 5))))
        x = nn.relu(conv(nn.relu(x)))
        return nn.Dense(self.classes, use_bias=False)(x.mean(axis=(1, 2)))


class Loops(nn.Module):
    """Loops over the images, so its batch has a fixed size."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        means = [(image / 255).mean(axis=(0, 1)) for image in x]
        return nn.Dense(self.classes)(jnp.stack(means))


class Nnx(nnx.Module):
    """A network of NNX, Flax's newer API."""

    def __init__(self, classes, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x, train=False):
        x = nnx.relu(self.norm(self.conv(x / 255), use_running_average=not train))
        x = self.dropout(x, deterministic=not train)
        return self.head(x.mean(axis=(1, 2)))


def in_layers(*layers):
    """A function that makes a `ConvNet` of foreign layers."""
    return lambda classes: ConvNet([Conv(8, strides=2), *layers, GlobalPool()], classes)


def sequential(classes):
    """A list of Flax's own layers and functions."""
    return nn.Sequential(
        [
            *(lambda x: x / 255, nn.Conv(8, (3, 3), strides=2), nn.relu),
            *(functools.partial(jnp.mean, axis=(1, 2)), nn.Dense(classes)),
        ]
    )


NETWORKS = {
    "a layer between ours": in_layers(Residual(), SqueezeExcite()),
    "layers of Flax and a function between ours": in_layers(
        nn.Conv(8, (1, 1)), nn.GroupNorm(4), nn.gelu, nn.Dropout(0.1)
    ),
    "no argument for training": Plain,
    "batch norm of Flax": functools.partial(Normed, norm="batch"),
    "group norm": functools.partial(Normed, norm="group"),
    "layer norm": functools.partial(Normed, norm="layer"),
    "spectral norm": Spectral,
    "counter, key and noise": Counting,
    "attention": Attention,
    "no dense layer": Bare,
    "boxes, no bias, shared weights": Boxed,
    "sequential": sequential,
    "batch of a fixed size": Loops,
    "bfloat16": lambda classes: ConvNet([Conv(8), GlobalPool()], classes, dtype="bfloat16"),
    "float16 parameters": lambda classes: nn.Sequential(
        [
            *(lambda x: x / 255, nn.Conv(8, (3, 3), strides=2, param_dtype=jnp.float16)),
            *(functools.partial(jnp.mean, axis=(1, 2)), nn.Dense(classes)),
        ]
    ),
    "NNX through the bridge": lambda classes: nnx.bridge.to_linen(Nnx, classes),
}
