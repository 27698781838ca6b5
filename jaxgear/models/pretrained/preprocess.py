"""The preprocessing that pretrained weights need; it is stored with them."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


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
