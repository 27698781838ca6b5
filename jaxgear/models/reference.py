"""The baseline: the CNN that published solutions to this task train."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxgear.models.cpu import convolution, max_pool


class ReferenceCNN(nn.Module):
    """conv24-pool, conv24-pool, conv24, conv24 (one shared kernel), conv48-pool, dropout, dense:
    [B, 128, 128, 3], RGB 0 to 255 -> [B, classes]; 0.16 M weights.
    """

    classes: int

    @nn.compact
    def __call__(self, images: Num[ArrayLike, "B H W 3"], train: bool) -> Float[Array, "B K"]:
        conv = functools.partial(
            nn.Conv, kernel_size=(3, 3), conv_general_dilated=convolution.conv_general_dilated
        )
        conv1, conv2, conv3 = conv(24), conv(24), conv(48)
        pool = functools.partial(max_pool, window=(2, 2), strides=(2, 2))
        x = (jnp.asarray(images, jnp.float32) / 255 - 0.5) / 0.5
        x = nn.relu(pool(conv1(x)))  # [B, 64, 64, 24]
        x = nn.relu(pool(conv2(x)))  # [B, 32, 32, 24]
        x = nn.relu(conv2(x))
        x = nn.relu(conv2(x))
        x = nn.relu(pool(conv3(x)))  # [B, 16, 16, 48]
        x = nn.Dropout(0.5, broadcast_dims=(1, 2), deterministic=not train)(x)  # whole channels
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))
