"""Counts the floating-point operations of a traced program, the same on every machine."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var


def flops(program: ClosedJaxpr | Jaxpr) -> int:
    """FLOPs of the matrix products and convolutions of a program; a multiply-add counts two.

    They are nearly all of a network's FLOPs. Not counted: elementwise operations, reductions,
    decompositions of matrices, products with the zeros of a convolution's padding, and what no
    result needs. So a convolution and each of its two gradients count the same.

    Where a function has several forms (`jax.lax.platform_dependent`), the one for platforms without
    a form of their own counts, so the count is not that of a CPU's shortcuts. Of a condition, the
    branch with the most counts; of a loop whose rounds the data decides, one round. Recomputed
    values count each time.
    """
    jaxpr = getattr(program, "jaxpr", program)
    return _needed(jaxpr, [True] * len(jaxpr.outvars))


def _needed(program: ClosedJaxpr | Jaxpr, used: Sequence[bool]) -> int:
    """FLOPs of what the results marked by `used` need."""
    jaxpr = getattr(program, "jaxpr", program)
    results = zip(jaxpr.outvars, used, strict=True)
    wanted = {value for value, is_used in results if is_used and isinstance(value, Var)}
    total = 0
    for equation in reversed(jaxpr.eqns):
        used = [value in wanted for value in equation.outvars]
        if any(used) or equation.effects:
            total += _of(equation, used)
            wanted.update(value for value in equation.invars if isinstance(value, Var))
    return total


def _of(equation: JaxprEqn, used: Sequence[bool]) -> int:
    parameters = equation.params
    match equation.primitive.name:
        case "dot_general":
            return _product(equation)
        case "conv_general_dilated":
            return _convolution(equation)
        case "cond":
            counts = [_needed(branch, used) for branch in parameters["branches"]]
            platforms = parameters.get("branches_platforms")
            return counts[platforms.index(None)] if platforms else max(counts)
        case "scan":  # a round may need all results of the one before
            return parameters["length"] * flops(parameters["jaxpr"])
        case "while":
            return flops(parameters["body_jaxpr"]) + flops(parameters["cond_jaxpr"])
    inner = [one for value in parameters.values() for one in bodies(value)]
    return sum(_needed(one, used) for one in inner if len(one.outvars) == len(used))


def bodies(value: Any) -> list[ClosedJaxpr | Jaxpr]:
    """The jaxprs in a parameter of an equation."""
    values = value if isinstance(value, tuple | list) else [value]
    return [v for v in values if isinstance(v, ClosedJaxpr | Jaxpr)]


def _product(equation: JaxprEqn) -> int:
    (left, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in left)


def _convolution(equation: JaxprEqn) -> int:
    parameters = equation.params
    x, kernel = (variable.aval.shape for variable in equation.invars)
    numbers = parameters["dimension_numbers"]
    images, _, *sides = numbers.lhs_spec
    features, channels, *window = numbers.rhs_spec
    hits = [
        _hits(x[side], kernel[tap], *options)
        for side, tap, *options in zip(
            sides,
            window,
            parameters["window_strides"],
            parameters["padding"],
            parameters["lhs_dilation"],
            parameters["rhs_dilation"],
            strict=True,
        )
    ]
    each = x[images] // parameters["batch_group_count"]
    return 2 * math.prod(hits) * each * kernel[features] * kernel[channels]


def _hits(
    length: int, window: int, stride: int, pads: tuple[int, int], between: int, apart: int
) -> int:
    """Pairs of an output place and a kernel tap, along one axis, that meet a real number.

    Args:
        between: distance of neighbours of the input (`lhs_dilation`).
        apart: distance of neighbours of the kernel (`rhs_dilation`).
    """
    before, after = pads
    span = (length - 1) * between + 1
    places = (span + before + after - (window - 1) * apart - 1) // stride + 1
    at = np.arange(places)[:, None] * stride + np.arange(window) * apart - before
    return int(((at >= 0) & (at < span) & (at % between == 0)).sum())
