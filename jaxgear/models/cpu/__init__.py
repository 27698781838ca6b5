"""Layers written for CPUs, with the same results as XLA's own: convolution, pooling, batch norm.

convolution.py is where to start. Other platforms take the operation that XLA has.
"""

from jaxgear.models.cpu.normalization import BatchNorm
from jaxgear.models.cpu.pooling import max_pool

__all__ = ["BatchNorm", "max_pool"]
