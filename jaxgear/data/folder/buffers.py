"""Memory for many pictures, which JAX on a CPU takes as it is.

It copies arrays that do not start where it wants them to: a set that is trained on in memory would
take it twice.
"""

import math

import numpy as np
from jaxtyping import UInt8

_ALIGNMENT = 64  # bytes, as JAX was seen to ask for (tests/data/test_batches.py would fail)


def empty_pictures(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """An array u8 of this shape, not filled, for `jax.device_put` to share.

    Whoever hands it to JAX must not write to it any more.
    """
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)
