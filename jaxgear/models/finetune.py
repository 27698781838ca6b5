"""A classifier on the features of a pretrained ResNet: `Head` alone, or on top of its backbone.

Experiments first train a `Head` on cached features (features.py). `FineTuned` is the whole network
from images to logits with the same head. Its frozen stages use their stored statistics and never
change them. An optax expression in the experiment decides which parameters to train.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num, PyTree

from jaxgear.models.pretrained import STAGES, Backbone, Preprocess, ResNet

FROZEN = STAGES + 1  # the `train_from` that trains only the head


class Head(nn.Module):
    """Pooled features, scaled to about 1, through dropout to logits: [B, D] -> [B, K].

    With several views per image, [B, V, D], it classifies their mean.
    """

    classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Num[ArrayLike, "B *V D"], train: bool) -> Float[Array, "B K"]:
        x = unit_scale(features)
        x = x.mean(axis=1) if x.ndim == 3 else x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="dense")(x)


def unit_scale(features: Num[ArrayLike, "*B D"]) -> Float[Array, "*B D"]:
    """Features scaled to unit root mean square, so one learning rate suits any backbone."""
    x = jnp.asarray(features, jnp.float32)
    return x * jnp.reciprocal(jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-6))


class FineTuned(nn.Module):
    """Images (RGB, 0 to 255) through a ResNet's features to logits: [B, H, W, 3] -> [B, K].

    With `first`, its input is the map that this stage reads, [B, h, w, C], in place of images.
    `order`, `scale`, `mean` and `std` are the preprocessing of the weights (`Preprocess`). Stages
    from `train_from` on are trained (0: the stem; `FROZEN`: none). They use the weights' running
    statistics, or with `batch_statistics` the batch's own. With `mirror`, features are the mean
    over the image and its mirror image, except in training.
    """

    backbone: ResNet
    head: Head
    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train_from: int = FROZEN
    batch_statistics: bool = False
    mirror: bool = False
    first: int = 0

    @classmethod
    def over(cls, backbone: Backbone, head: Head, **fields: Any) -> "FineTuned":
        """The network of a pretrained backbone and a head, with its preprocessing."""
        pre = backbone.preprocess
        return cls(backbone.module, head, pre.order, pre.scale, pre.mean, pre.std, **fields)

    def __call__(self, images: Num[ArrayLike, "B H W C"], train: bool) -> Float[Array, "B K"]:
        if train or not self.mirror:
            return self.head(self.features(images, train), train)
        images = jnp.asarray(images)
        both = jnp.stack([images, images[:, :, ::-1]], axis=1).reshape(-1, *images.shape[1:])
        features = self.features(both, train)
        return self.head(features.reshape(images.shape[0], 2, -1), train)

    def features(self, images: Num[ArrayLike, "B H W C"], train: bool) -> Float[Array, "B D"]:
        """The pooled features of the last stage."""
        x = jnp.asarray(images)
        if self.first == 0:
            x = Preprocess(self.order, self.scale, self.mean, self.std)(x)
        return self.backbone(x, train, self.train_from, self.batch_statistics, self.first)


def whole_variables(backbone: Backbone, head: PyTree) -> PyTree:
    """The variables of a `FineTuned` network, from the variables of its head."""
    below = backbone.variables
    return {
        "params": {"backbone": below["params"], "head": head["params"]},
        "batch_stats": {"backbone": below.get("batch_stats", {})},
    }


def upper_variables(variables: PyTree, first: int) -> PyTree:
    """The variables of `FineTuned(first=first)`, from those of the whole network."""
    flat = traverse_util.flatten_dict(variables)
    kept = {path: leaf for path, leaf in flat.items() if stage_of(path[1:]) >= first}
    return traverse_util.unflatten_dict(kept)


def stage_of(path: tuple[str, ...]) -> int:
    """The stage of a `FineTuned` parameter, from its path: 0 is the stem, 5 the head."""
    if path[0] == "head":
        return FROZEN
    name = path[1]
    if name == "pool":  # CLIP's attention, behind the last stage
        return STAGES
    return int(name.removeprefix("layer").split("_")[0]) if name.startswith("layer") else 0


def groups(params: PyTree, train_from: int) -> PyTree:
    """`params` of `FineTuned` with each leaf replaced by "frozen", "backbone" or "head".

    Labels for `optax.partition`. Stages below `train_from` are frozen. (`optax.masked` alone would
    pass on the gradient of frozen leaves.)
    """

    def group(path: tuple[str, ...]) -> str:
        stage = stage_of(path)
        return "head" if stage == FROZEN else "backbone" if stage >= train_from else "frozen"

    return traverse_util.path_aware_map(lambda path, _: group(path), params)
