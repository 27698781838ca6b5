"""Muon for convolutions, and masks for optax; optimizers are put together in the experiment."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree
from optax.contrib import MuonDimensionNumbers

# Of Jordan et al. 2024: singular values end between 0.7 and 1.2, not at 1, which is enough.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def kernels(params: PyTree) -> PyTree:
    """True for kernels, False for biases and normalisation: what weight decay should act on."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def muon(
    learning_rate: optax.ScalarOrSchedule,
    adam_learning_rate: optax.ScalarOrSchedule,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """`optax.contrib.muon` for convolution kernels (Jordan et al. 2024), Adam for all else.

    A kernel [kh, kw, Cin, Cout] is a matrix to Cout. All other parameters, the head among them, are
    left to Adam with Nesterov's momentum, as its authors advise; `weight_decay` is that of the
    kernels. The same updates as optax's but for rounding, on a CPU in a fifth of its time
    (results/speed.md).
    """

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda p: "muon" if p.ndim == 4 else "adam", params)

    def matrices(updates: PyTree) -> PyTree:
        return jax.tree.map(lambda _: MuonDimensionNumbers((0, 1, 2), 3), updates)

    def turned(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(_kernel_update, updates)

    return optax.partition(
        {
            "muon": optax.chain(
                # Its momentum alone: without iterations it only divides by the norm.
                optax.contrib.scale_by_muon(ns_steps=0, weight_dimension_numbers=matrices),
                optax.stateless(turned),
                optax.add_decayed_weights(weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            ),
            "adam": optax.adamw(adam_learning_rate, weight_decay=0.0, nesterov=True),
        },
        labels,
    )


def _kernel_update(kernel: Float[Array, "kh kw Cin Cout"]) -> Float[Array, "kh kw Cin Cout"]:
    matrix = kernel.reshape(-1, kernel.shape[-1])
    rows, columns = matrix.shape
    return max(1, columns / rows) ** 0.5 * orthogonalized(matrix).reshape(kernel.shape)


def orthogonalized(matrix: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The matrix with its singular values brought near 1; zeros stay zeros.

    Newton-Schulz iteration of Muon, X <- (a + b X X' + c (X X')^2) X.
    """
    norm = jnp.linalg.norm(matrix)
    matrix /= jnp.where(norm == 0, 1, norm)
    # A GPU has nothing of the fewer products, and rounds them to TensorFloat-32 where it is not
    # kept from it, which makes small eigenvalues of X X' negative: those would grow.
    return jax.lax.platform_dependent(matrix, cpu=by_gram, default=by_matrix)


def by_matrix(x: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The iteration as it is written, for a matrix of norm 1."""
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        if x.shape[0] >= x.shape[1]:
            gram = x.T @ x
            x = a * x + x @ (b * gram + c * gram @ gram)
        else:
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def by_gram(x: Float[Array, "R C"]) -> Float[Array, "R C"]:
    """The same for fewer products: its factors are all polynomials of the first X X', so they are
    multiplied with each other, in the smaller dimension of X, and with X once.
    """
    a, b, c = QUINTIC
    tall = x.shape[0] >= x.shape[1]
    gram = x.T @ x if tall else x @ x.T
    product = None
    for last in [False] * (ITERATIONS - 1) + [True]:
        factor = a * jnp.eye(len(gram)) + b * gram + c * (gram @ gram)
        product = factor if product is None else product @ factor
        if not last:
            gram = factor @ gram @ factor
    return x @ product if tall else product @ x
