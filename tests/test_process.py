"""XLA gets its options where nobody chose others, and Python looks for cycles rarely."""

import ast
import os
import subprocess
import sys

import pytest

from jaxgear.machine.process import NEW_OBJECTS, set_xla_flags

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
    program = "from jaxgear.machine import process; process.set_up_process(); import jax; "
    done = subprocess.run(
        [sys.executable, "-c", program + "print(float(jax.numpy.ones(3).sum()))"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


@pytest.mark.parametrize(
    ("program", "rarely"),
    [
        ("import sys; sys.argv[0] = '-m'; import experiments", True),
        ("import jaxgear; jaxgear.ConvNet", False),  # a notebook is not ours
    ],
)
def test_a_command_looks_for_cycles_rarely_and_a_library_leaves_that_alone(program, rarely):
    code = f"import gc; before = gc.get_threshold(); {program}; print(before, gc.get_threshold())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    before, after = ast.literal_eval(f"({done.stdout.strip().replace(') (', '), (')})")
    assert after == ((NEW_OBJECTS, *before[1:]) if rarely else before)
