"""ResNets of 18 to 152 layers without a head: v1, v1.5 and CLIP's, in Flax; their preprocessing.

He et al. 2015, "Deep Residual Learning for Image Recognition", table 1. v1 halves the map in the
first 1x1 convolution of a stage (the paper, Caffe, Keras), v1.5 in its 3x3 (torchvision, timm).
CLIP's (clip.py) begins with three 3x3 convolutions, averages 2 x 2 cells where v1.5 has a stride,
and ends in attention. Published weights also differ in epsilon, momentum and biases of the
convolutions. All of these are fields, which the loader sets to fit the weights. Parameter paths are
`conv{k}`, `norm{k}`, `pool` and `layer{stage}_{unit}/conv{k} | norm{k} | conv_skip | norm_skip`,
stages from 1 and units from 0.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgear.models.cpu import BatchNorm, convolution, max_pool
from jaxgear.models.pretrained.clip import AttentionPool, halve

# Depth -> whether units are bottlenecks, and units per stage (table 1 of the paper).
DEPTHS: dict[int, tuple[bool, tuple[int, ...]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
STAGES = 4


class ResNet(nn.Module):
    """Normalised images [B, H, W, 3] -> features [B, D], D = 8 or 32 times `width`, or CLIP's.

    `params` and `batch_stats` are float32; computation is in `dtype`. With `norm=False` there is no
    normalisation, because `fold_batch_norm` has folded it into the convolutions.
    """

    depth: int = 50
    width: int = 64  # channels of the first convolution
    stride_in_1x1: bool = False  # True: v1, False: v1.5; no difference without bottlenecks
    epsilon: float = 1e-5
    momentum: float = 0.9  # share of the running statistics that a step keeps
    conv_bias: bool = False
    grid: int = 0  # CLIP's: rows and columns of the map that attention has positions for; 0: none
    embedding: int = 0  # CLIP's: number of features
    norm: bool = True
    dtype: str = "float32"

    def setup(self) -> None:
        if self.grid:
            heads = max(1, self.width // 2)  # of 64 channels each
            self.pool = AttentionPool(self.grid, heads, self.embedding, self.dtype)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        train: bool = False,
        train_from: int = 0,
        batch_statistics: bool = True,
        first: int = 0,
    ) -> Float[Array, "B D"]:
        """The last stage's map, pooled; `x` and `first` are those of `stages`.

        With `train`, stages from `train_from` on are trained (0: the stem). Lower stages are
        frozen and get no gradient. Trained stages use the batch's statistics and update the running
        ones; without `batch_statistics` they use the running ones.
        """
        x = self.stages(x, train, train_from, first, batch_statistics=batch_statistics)
        x = self.pool(x) if self.grid else x.astype(jnp.float32).mean(axis=(1, 2))
        if train and train_from > STAGES:
            x = jax.lax.stop_gradient(x)
        return x.astype(jnp.float32)

    @nn.compact
    def stages(
        self,
        x: Float[Array, "B H W C"],
        train: bool = False,
        train_from: int = 0,
        first: int = 0,
        last: int = STAGES,
        batch_statistics: bool = True,
    ) -> Float[Array, "B h w F"]:
        """The map after stage `last`, from stage `first` on (0: the stem).

        `x` is a batch of normalised images, or the map of stage `first` - 1. The result is `H / 2
        ** (last + 1)` wide (stem: / 4) and has `width * 2 ** (last - 1)` channels, four times that
        with bottlenecks.
        """
        bottleneck, units = DEPTHS[self.depth]
        dtype = jnp.dtype(self.dtype)
        x = x.astype(dtype)
        for stage in range(first, last + 1):
            if train and 0 < stage == train_from:
                x = jax.lax.stop_gradient(x)  # the backward pass ends here
            conv = functools.partial(_conv, self.conv_bias, dtype)
            norm = self._norm(train and batch_statistics and stage >= train_from, dtype)
            if stage == 0:
                half = (self.width // 2, 3)
                plan = [half, half, (self.width, 3)] if self.grid else [(self.width, 7)]
                for k, (features, window) in enumerate(plan, start=1):
                    x = conv(features, window, 2 if k == 1 else 1, name=f"conv{k}")(x)
                    x = nn.relu(norm(name=f"norm{k}")(x))
                x = halve(x) if self.grid else max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
                continue  # [B, H/4, W/4, 64]
            for unit in range(units[stage - 1]):
                x = Unit(
                    features=self.width * 2 ** (stage - 1),
                    stride=2 if stage > 1 and unit == 0 else 1,
                    bottleneck=bottleneck,
                    stride_in_1x1=self.stride_in_1x1,
                    average=self.grid > 0,
                    conv=conv,
                    norm=norm,
                    name=f"layer{stage}_{unit}",
                )(x)  # stages 1 to 4: [B, H/4, W/4, 256] ... [B, H/32, W/32, 2048]
        return x

    def _norm(self, train: bool, dtype: jnp.dtype) -> Callable[..., Callable]:
        if not self.norm:
            return lambda name: lambda x: x
        return functools.partial(
            BatchNorm,
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=dtype,
        )


class Unit(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1, plus the skip connection."""

    features: int  # of the 3x3 convolutions; a bottleneck gives four times as many
    stride: int
    bottleneck: bool
    stride_in_1x1: bool
    average: bool  # average cells in place of a stride
    conv: Callable[..., nn.Module]
    norm: Callable[..., Callable]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w F"]:
        f = self.features
        plan = [(f, 1), (f, 3), (4 * f, 1)] if self.bottleneck else [(f, 3), (f, 3)]
        strided = 2 if self.bottleneck and not self.stride_in_1x1 else 1
        stride = 1 if self.average else self.stride
        shrink = halve if self.average and self.stride == 2 else lambda x: x
        y = x
        for k, (features, window) in enumerate(plan, start=1):
            y = self.conv(features, window, stride if k == strided else 1, name=f"conv{k}")(y)
            y = self.norm(name=f"norm{k}")(y)
            if k < len(plan):
                y = nn.relu(y)
            if k == strided:
                y = shrink(y)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv(y.shape[-1], 1, stride, name="conv_skip")(shrink(x))
            x = self.norm(name="norm_skip")(x)
        return nn.relu(x + y)


def _conv(
    bias: bool, dtype: jnp.dtype, features: int, window: int, stride: int, name: str
) -> nn.Conv:
    """A convolution with explicit pads: `SAME` pads unevenly at stride 2, which shifts the map."""
    return nn.Conv(
        features,
        (window, window),
        strides=(stride, stride),
        padding=[(window // 2, window // 2)] * 2,
        use_bias=bias,
        dtype=dtype,
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )


def fold_batch_norm(variables: dict, epsilon: float) -> dict:
    """Folds each normalisation into its convolution: {"params", "batch_stats"} -> {"params"}.

    `scale * (conv(x) + bias - mean) / sqrt(var + epsilon) + shift` is itself a convolution, exactly
    so in real numbers. For `ResNet(norm=False, conv_bias=True)`; inference only.
    """
    params, stats = variables["params"], variables["batch_stats"]
    folded = {}
    for name, child in params.items():
        if name.startswith("layer"):
            inner = {"params": child, "batch_stats": stats[name]}
            folded[name] = fold_batch_norm(inner, epsilon)["params"]
        elif name.startswith("conv"):
            norm_name = name.replace("conv", "norm")
            norm, stat = params[norm_name], stats[norm_name]
            gain = norm["scale"] * jax.lax.rsqrt(stat["var"] + epsilon)  # [F]
            bias = child.get("bias", 0.0) - stat["mean"]
            folded[name] = {"kernel": child["kernel"] * gain, "bias": norm["bias"] + bias * gain}
        elif name == "pool":
            folded[name] = child
    return {"params": folded}


@dataclass(frozen=True)
class Preprocess:
    """`(images * scale - mean) / std`, with channels in `order` ("RGB" or "BGR") throughout."""

    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Num[Array, "N H W 3"]) -> Float[Array, "N H W 3"]:
        """u8 RGB, 0 to 255 -> the network's input, float32. Differentiable, for jit."""
        x = jnp.asarray(images, jnp.float32)
        if self.order == "BGR":
            x = x[..., ::-1]
        return (x * self.scale - jnp.array(self.mean)) / jnp.array(self.std)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Preprocess":
        """The inverse of `to_json`; ValueError for any other value."""
        try:
            order, scale = value["order"], float(value["scale"])
            mean, std = (tuple(float(v) for v in value[key]) for key in ("mean", "std"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a preprocessing: {value!r}") from error
        sound = order in ("RGB", "BGR") and len(mean) == len(std) == 3 and min(std) > 0
        if not sound or not all(map(math.isfinite, (scale, *mean, *std))):
            raise ValueError(f"not a preprocessing: {value!r}")
        return cls(order, scale, mean, std)


def imagenet(mean: tuple = (0.485, 0.456, 0.406), std: tuple = (0.229, 0.224, 0.225)) -> Preprocess:
    """RGB in [0, 1], standardised: torchvision, timm, Hugging Face."""
    return Preprocess("RGB", 1 / 255, mean, std)


# Caffe's, which Keras also uses: BGR, 0 to 255, minus the mean of ImageNet.
CAFFE = Preprocess("BGR", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
CLIP = imagenet((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
