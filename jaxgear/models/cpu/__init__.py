"""Layers that are fast on CPUs and equal XLA's own: convolution, pooling, batch normalisation.

convolution.py is where to start; gradients.py has its gradients. On other platforms, convolution is
XLA's.
"""

from jaxgear.models.cpu.normalization import BatchNorm
from jaxgear.models.cpu.pooling import global_max, max_pool

__all__ = ["BatchNorm", "global_max", "max_pool"]
