"""Masks say which parameters an optimizer's rule is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgear.training import optim

PARAMS = {
    "conv": {"kernel": jnp.ones((3, 3, 4, 8)), "bias": jnp.ones(8)},
    "norm": {"scale": jnp.ones(8), "bias": jnp.ones(8)},
    "head": {"kernel": jnp.ones((8, 2)), "bias": jnp.ones(2)},
}


def test_weight_decay_acts_on_kernels_alone():
    tx = optax.adamw(0.1, weight_decay=0.5, mask=optim.kernels)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = tx.update(zero, tx.init(PARAMS), PARAMS)
    moved = jax.tree.map(lambda u: bool((u != 0).all()), updates)
    assert moved == {
        "conv": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "head": {"kernel": True, "bias": False},
    }


def test_muon_takes_convolution_kernels_as_matrices_and_nothing_else():
    tx = optax.contrib.muon(
        1.0, adam_learning_rate=0.0, muon_weight_dimension_numbers=optim.convolution_kernels
    )
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    singular = jnp.linalg.svd(updates["conv"]["kernel"].reshape(-1, 8), compute_uv=False)
    np.testing.assert_allclose(singular / singular.max(), 1, atol=0.5)  # near orthogonal
    others = [leaf for name in ("norm", "head") for leaf in jax.tree.leaves(updates[name])]
    assert all(not leaf.any() for leaf in [*others, updates["conv"]["bias"]])
