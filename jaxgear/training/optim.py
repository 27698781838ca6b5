"""Masks and partitions of parameters for optax; optimizers are made in the experiment."""

import jax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers


def kernels(params: PyTree) -> PyTree:
    """True for kernels, False for biases and normalisation: what weight decay should act on."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def convolution_kernels(params: PyTree) -> PyTree:
    """How `optax.contrib.muon` sees a convolution kernel [kh, kw, Cin, Cout]: a matrix to Cout.

    All other parameters, the head among them, are left to Muon's Adam (Jordan et al. 2024 advise
    so).
    """
    matrix = MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda p: matrix if p.ndim == 4 else None, params)
