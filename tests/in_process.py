"""Runs a command in the process of the tests, which has imported and compiled already."""

import signal
import sys
from collections.abc import Callable

import pytest


def exit_code(command: Callable[[], object], *arguments: object) -> int | None:
    """What a process of `command` would end with; `arguments` are the words of its line."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [__file__, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return stop.value.code
