"""Exports each network once: tests use the same few, and tracing one takes half a second."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax


def once(export: Callable[..., Any]) -> Callable[..., Any]:
    """`export(model, variables, size)`, which remembers what equal arguments gave."""
    known = []

    def exported(model, variables, size):
        asked = (type(model), model, jax.eval_shape(lambda: variables), size)
        with suppress(ValueError):  # networks that hold arrays cannot be compared
            for arguments, result in known:
                if arguments == asked:
                    return result
        known.append((asked, export(model, variables, size)))
        return known[-1][1]

    return exported
