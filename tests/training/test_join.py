"""Joined programs: numbers may differ anywhere in them, and nothing else may."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgear.training.vectorized.join import DifferError, joined


def scaled(number):
    """A function with a number in each kind of inner program."""

    @jax.custom_jvp
    def custom(x):
        return x * number

    custom.defjvps(lambda tangent, out, x: tangent * number)

    def function(x, table):
        x = jax.jit(lambda x: x + number)(x)
        x = lax.cond(x.sum() > 0, lambda x: x * number, lambda x: x - number, x)
        x, rows = lax.scan(lambda c, row: (c + number * row, c.sum()), x, table)
        x = lax.while_loop(lambda x: x.sum() < number * 50, lambda x: x + number, x)
        return custom(x) + np.float32([number, 1]), rows, number

    return function


def test_numbers_are_joined_wherever_they_are():
    x, table = jnp.float32([1, 2]), jnp.ones((3, 2))
    functions = [scaled(number) for number in (0.5, 2.0, 3.0)]
    programs = [jax.make_jaxpr(function)(x, table) for function in functions]
    function = joined(programs)
    rows = jax.vmap(lambda number: function(number, x, table))(jnp.arange(3))
    for i, one in enumerate(functions):
        for ours, theirs in zip(rows, one(x, table), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-6)


def test_random_keys_that_functions_close_over_are_numbers_too():
    keys = [jax.random.key(seed) for seed in (1, 1, 2)]
    functions = [lambda x, key=key: x + jax.random.normal(key, x.shape) for key in keys]
    x = jnp.ones(3)
    function = joined([jax.make_jaxpr(one)(x) for one in functions])
    (rows,) = jax.vmap(lambda number: function(number, x))(jnp.arange(3))
    np.testing.assert_array_equal(rows[0], rows[1])
    for ours, one in zip(rows, functions, strict=True):
        np.testing.assert_allclose(ours, one(x), rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: jnp.sin(x) * 3,  # another operation
        lambda x: jnp.cos(x)[:1] * 2,  # another shape
        lambda x: jnp.cos(x) * x,  # an array in place of a number
        lambda x: jnp.cos(x) * 2 + 1,  # an operation more
        lambda x: lax.reduce_precision(jnp.cos(x) * 2, 8, 7),
    ],
)
def test_other_programs_are_not_joined(other):
    x = jnp.ones(2)
    programs = [jax.make_jaxpr(function)(x) for function in (lambda x: jnp.cos(x) * 2, other)]
    with pytest.raises(DifferError):
        joined(programs)


def test_parameters_of_operations_must_be_equal():
    x = jnp.ones(2)
    functions = [functools.partial(lax.reduce_precision, exponent_bits=8, mantissa_bits=m)
                 for m in (7, 8)]  # fmt: skip
    with pytest.raises(DifferError, match="mantissa_bits"):
        joined([jax.make_jaxpr(function)(x) for function in functions])
