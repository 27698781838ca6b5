"""Layers of CLIP's ResNets: averages in place of strides, attention in place of the mean.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
section 2.4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgear.errors import UsageError


def halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """The mean of each 2 x 2 cells; a last odd row or column is left out.

    Raises:
        UsageError: there is only one row or column.
    """
    if min(x.shape[1:3]) < 2:
        raise UsageError("--image-size: weights of CLIP need images of 32 pixels a side or more")
    return nn.avg_pool(x, (2, 2), (2, 2))


class AttentionPool(nn.Module):
    """A map [B, h, w, C] -> [B, D]: attention of several heads, whose only query is the mean.

    Each of `grid` x `grid` cells has a learned position. Those of a map of another size are
    interpolated (bicubic, with antialiasing).
    """

    grid: int  # rows and columns of the map that the positions are for
    heads: int  # divides C
    features: int  # D
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B D"]:
        count, *shape, width = x.shape
        init = nn.initializers.normal(width**-0.5)
        positions = self.param("positions", init, (1 + self.grid**2, width))  # of the mean first
        cells = positions[1:].reshape(self.grid, self.grid, width)
        cells = jax.image.resize(cells, (*shape, width), "cubic").reshape(-1, width)
        x = x.reshape(count, -1, width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)  # [B, 1 + h w, C]
        x = (x + jnp.concatenate([positions[:1], cells])).astype(self.dtype)

        def dense(name: str, inputs: Float[Array, "B N C"]) -> Float[Array, "B N H E"]:
            outputs = nn.Dense(width, dtype=self.dtype, name=name)(inputs)
            return outputs.reshape(count, -1, self.heads, width // self.heads)

        query, key, value = dense("query", x[:, :1]), dense("key", x), dense("value", x)
        pooled = nn.dot_product_attention(query, key, value).reshape(count, width)
        return nn.Dense(self.features, dtype=self.dtype, name="out")(pooled)
