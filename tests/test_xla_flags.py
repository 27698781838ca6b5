"""XLA gets its options where nobody chose others, and knows them."""

import os
import subprocess
import sys

import pytest

from jaxgear.machine.xla_flags import set_xla_flags

OURS = "--xla_backend_extra_options=xla_cpu_flatten_after_fusion"


@pytest.mark.parametrize(
    ("given", "then"),
    [
        (None, OURS),
        ("--xla_dump_to=x", f"--xla_dump_to=x {OURS}"),
        (OURS, OURS),  # a process that was started by one of ours
        ("--xla_backend_extra_options=a", "--xla_backend_extra_options=a"),
    ],
)
def test_options_are_added_to_what_was_given(monkeypatch, given, then):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    set_xla_flags()
    assert os.environ["XLA_FLAGS"] == then


def test_xla_takes_them():
    """It ends a process that gives it a flag it does not know."""
    program = "from jaxgear.machine import xla_flags; xla_flags.set_xla_flags(); import jax; "
    done = subprocess.run(
        [sys.executable, "-c", program + "print(float(jax.numpy.ones(3).sum()))"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr
