"""Joins programs that differ in numbers alone, so that `jax.vmap` can run them as one.

A recipe writes its rate, decay or smoothing as Python numbers, and they end as constants inside its
training step. Here the steps of several recipes are compared as jaxprs, equation by equation. Where
a constant differs, the joined step reads it from an array, at the place of its run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, Int

from jaxgear.program.flops import bodies

Read = Callable[[Sequence[Any]], Any]  # one value from those of each program
# Primitives that only call a jaxpr, under this name.
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class DifferError(Exception):
    """The programs differ in more than numbers."""


def joined(programs: Sequence[ClosedJaxpr]) -> Callable[..., list[Array]]:
    """A function f(number, *leaves) that equals `programs[number]`, leaves to leaves.

    Under `jax.vmap` over `number`, an int32, it is one program for all of them.

    Raises:
        DifferError: the programs differ in more than numbers.
    """
    compare(programs)
    return lambda number, *leaves: _run(programs, _reader(number), leaves)


def _reader(number: Int[Array, ""]) -> Read:
    def read(values: Sequence[Any]) -> Any:
        return values[0] if _equal(values) else jnp.stack(values)[number]

    return read


def _equal(values: Sequence[Any]) -> bool:
    first, *others = map(_plain, values)
    return all(v is first or np.array_equal(v, first, equal_nan=True) for v in others)


def _plain(value: Any) -> Any:
    """The numbers of a random key, or the value itself."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(value)
    return value


def compare(programs: Sequence[ClosedJaxpr | Jaxpr]) -> bool:
    """Whether programs that have the same equations have the same numbers.

    Raises:
        DifferError: they have other equations.
    """
    first, *others = (_open(program) for program in programs)
    constants = [_constants(program) for program in programs]
    same = all(map(_equal, zip(*constants, strict=True)))
    for other in others:
        names = dict(zip(_inputs(other), _inputs(first), strict=True))
        if [v.aval for v in names] != [v.aval for v in names.values()]:
            raise DifferError("the shapes of arrays differ")
        if len(first.eqns) != len(other.eqns):
            raise DifferError(f"{len(first.eqns)} and {len(other.eqns)} operations")
        for ours, theirs in zip(first.eqns, other.eqns, strict=True):
            same &= _compare_equations(ours, theirs, names)
        same &= _compare_atoms(first.outvars, other.outvars, names, "output")
    return same


def _compare_equations(ours: JaxprEqn, theirs: JaxprEqn, names: dict[Var, Var]) -> bool:
    name = ours.primitive.name
    if ours.primitive is not theirs.primitive:
        raise DifferError(f"operations {name} and {theirs.primitive.name}")
    same = _compare_atoms(ours.invars, theirs.invars, names, name)
    if [v.aval for v in ours.outvars] != [v.aval for v in theirs.outvars]:
        raise DifferError(f"shapes of {name}")
    names.update(zip(theirs.outvars, ours.outvars, strict=True))
    custom = name.startswith("custom_")  # other parameters are derivatives, already taken
    for key, value in ours.params.items():
        other = theirs.params[key]
        inner = list(zip(bodies(value), bodies(other), strict=True))
        if inner:
            matches = [compare(both) for both in inner]
            same &= all(matches)
        elif not custom and not _equal_parameters(value, other):
            raise DifferError(f"parameter {key} of {name}")
    return same


def _compare_atoms(
    ours: Sequence[Any], theirs: Sequence[Any], names: dict[Var, Var], where: str
) -> bool:
    same = True
    for our, their in zip(ours, theirs, strict=True):
        if isinstance(our, Literal) and isinstance(their, Literal) and our.aval == their.aval:
            same &= _equal([our.val, their.val])
        elif isinstance(our, Literal) or isinstance(their, Literal) or names[their] is not our:
            raise DifferError(f"arguments of {where}")
    return same


def _equal_parameters(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return _equal([ours, theirs])  # NaN equals NaN
    return bool(np.all(ours == theirs))


def _open(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def _constants(program: ClosedJaxpr | Jaxpr) -> list[Any]:
    return program.consts if isinstance(program, ClosedJaxpr) else []


def _inputs(program: Jaxpr) -> list[Var]:
    return [*program.constvars, *program.invars]


def _run(programs: Sequence[ClosedJaxpr | Jaxpr], read: Read, arguments: Sequence[Any]) -> list:
    """The outputs of the first program, with each number as `read` chooses it."""
    first = _open(programs[0])
    constants = map(read, zip(*map(_constants, programs), strict=True))
    values = dict(zip(_inputs(first), [*constants, *arguments], strict=True))

    def value_of(atoms: Sequence[Any]) -> Any:
        if isinstance(atoms[0], Literal):
            return read([atom.val for atom in atoms])
        return values[atoms[0]]

    for equations in zip(*(_open(program).eqns for program in programs), strict=True):
        inputs = map(value_of, zip(*(e.invars for e in equations), strict=True))
        outputs = _run_equation(equations, read, list(inputs))
        values.update(zip(equations[0].outvars, outputs, strict=True))
    return list(map(value_of, zip(*(_open(p).outvars for p in programs), strict=True)))


def _run_equation(equations: Sequence[JaxprEqn], read: Read, inputs: list[Any]) -> list[Any]:
    """The outputs of one equation; its inner programs may differ in numbers."""
    first = equations[0]
    primitive, parameters = first.primitive, first.params
    inner = {key: list(zip(*(bodies(e.params[key]) for e in equations), strict=True))
             for key in parameters}  # fmt: skip
    if all(compare(body) for every in inner.values() for body in every):
        outputs = primitive.bind(*inputs, **primitive.get_bind_params(parameters))
        return outputs if primitive.multiple_results else [outputs]

    def body(key: str, place: int = 0) -> Callable[..., list[Any]]:
        return lambda *arguments: _run(inner[key][place], read, arguments)

    if primitive.name == "cond":
        branches = [body("branches", place) for place in range(len(inner["branches"]))]
        return lax.switch(inputs[0], branches, *inputs[1:])
    if primitive.name == "scan":
        return _scan(body("jaxpr"), first, inputs)
    if primitive.name == "while":
        return _while(body("cond_jaxpr"), body("body_jaxpr"), parameters, inputs)
    for key in CALLS:
        if inner.get(key):
            return body(key)(*inputs)
    raise DifferError(f"numbers inside of {primitive.name}")


def _scan(step: Callable[..., list[Any]], equation: JaxprEqn, inputs: list[Any]) -> list:
    # Scanned values have one more axis outside the step; constants and the carry do not.
    parameters, inner = equation.params, _open(equation.params["jaxpr"])
    pairs = [
        zip(equation.outvars, inner.outvars, strict=True),
        zip(equation.invars, inner.invars, strict=True),
    ]
    carried, kept = (sum(a.aval.shape == b.aval.shape for a, b in both) for both in pairs)
    constants = kept - carried

    def run(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = step(*inputs[:constants], *carry, *rows)
        return outputs[:carried], outputs[carried:]

    carry, rows = lax.scan(
        run,
        inputs[constants : constants + carried],
        inputs[constants + carried :],
        length=parameters["length"],
        reverse=parameters["reverse"],
        unroll=parameters["unroll"],
    )
    return [*carry, *rows]


def _while(
    condition: Callable[..., list[Any]],
    step: Callable[..., list[Any]],
    parameters: dict[str, Any],
    inputs: list[Any],
) -> list[Any]:
    first = parameters["cond_nconsts"]
    start = first + parameters["body_nconsts"]
    return lax.while_loop(
        lambda carry: condition(*inputs[:first], *carry)[0],
        lambda carry: step(*inputs[first:start], *carry),
        inputs[start:],
    )
