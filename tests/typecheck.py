"""Checks signatures under pytest: beartype, which accepts an int for a float."""

import functools
from collections.abc import Callable
from typing import Any

import beartype

_checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` that checks its arguments; the checks are made at the first call.

    Most functions are never called by the tests of a process, and checks take a millisecond each.
    """

    @functools.cache
    def checked() -> Callable[..., Any]:
        return _checked(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return checked()(*args, **kwargs)

    return call
