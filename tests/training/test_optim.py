"""Masks say which parameters an optimizer's rule is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def gradients(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(scale * rng.normal(size=p.shape), jnp.float32), PARAMS
    )


def test_muon_takes_convolution_kernels_as_matrices_and_nothing_else():
    tx = optim.muon(1.0, adam_learning_rate=0.0)
    updates, _ = tx.update(gradients(0), tx.init(PARAMS), PARAMS)
    singular = jnp.linalg.svd(updates["conv"]["kernel"].reshape(-1, 8), compute_uv=False)
    np.testing.assert_allclose(singular / singular.max(), 1, atol=0.5)  # near orthogonal
    others = [leaf for name in ("norm", "head") for leaf in jax.tree.leaves(updates[name])]
    assert all(not leaf.any() for leaf in [*others, updates["conv"]["bias"]])


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_muon_steps_as_optax_has_it(scale):
    rate = optax.linear_schedule(0.1, 0.02, 5)
    ours = optim.muon(rate, adam_learning_rate=0.03, weight_decay=0.2)
    matrix = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    theirs = optax.contrib.muon(
        rate,
        adam_learning_rate=0.03,
        weight_decay=0.2,
        muon_weight_dimension_numbers=lambda params: jax.tree.map(
            lambda p: matrix if p.ndim == 4 else None, params
        ),
    )
    params, states = [PARAMS, PARAMS], [ours.init(PARAMS), theirs.init(PARAMS)]
    # A run that was begun with the one goes on with the other.
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for seed in range(6):
        for i, tx in enumerate((ours, theirs)):
            updates, states[i] = tx.update(gradients(seed, scale), states[i], params[i])
            params[i] = optax.apply_updates(params[i], updates)
    for mine, other in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("iteration", [optim.by_gram, optim.by_matrix])
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0))
def test_singular_values_go_through_the_polynomial(iteration, rows, columns, rank, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    matrix = (matrix / np.linalg.norm(matrix)).astype(np.float32)
    u, singular, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    for _ in range(optim.ITERATIONS):
        singular = sum(c * singular ** (2 * i + 1) for i, c in enumerate(optim.QUINTIC))
    np.testing.assert_allclose(iteration(jnp.asarray(matrix)), u * singular @ v, atol=2e-3)


def test_a_matrix_of_zeros_stays_one():
    assert not optim.orthogonalized(jnp.zeros((6, 4))).any()


def test_a_gpu_iterates_on_the_matrix():
    step = jax.jit(optim.orthogonalized).trace(jnp.ones((64, 4)))
    cpu, gpu = (step.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda"))
    # Products with the long side: the first and the last, or two in each iteration.
    count = lambda text: sum("64x4" in line for line in text.splitlines() if "dot_gene" in line)  # noqa: E731
    assert (count(cpu), count(gpu)) == (2, 2 * optim.ITERATIONS)
