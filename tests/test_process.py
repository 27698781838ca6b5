"""XLA gets its options where nobody chose others, and Python looks for cycles rarely."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgear.machine.process import set_xla_flags

ROOT = Path(__file__).parents[1]
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


START = "import sys; sys.argv[0] = '-m'; import experiments"
TRAINED = """
import jaxgear.experiment.assembly, jaxgear.training.progress, small_experiment
config = small_experiment.Config(data="drawn:60", image_size=16, batch_size=20, epochs=1)
training = jaxgear.experiment.assembly.prepare(config, small_experiment.recipe)
quiet = jaxgear.training.progress.Progress(quiet=True)
next(training.epochs(training.state, last=1, progress=quiet))
"""


@pytest.mark.parametrize(
    ("program", "rarely"),
    [
        (START, True),
        (START + TRAINED, False),
        ("import runpy, sys; sys.argv[1:] = ['--version']\n"
         "try: runpy.run_module('jaxgear', run_name='__main__')\n"
         "except SystemExit: pass", False),  # a server's requests hold the pictures that were sent
        ("import jaxgear; jaxgear.ConvNet", False),  # a notebook is not ours
    ],
)  # fmt: skip
def test_python_looks_for_cycles_rarely_until_a_step_is_compiled(program, rarely, tmp_path):
    code = f"import gc; before = gc.get_threshold()\n{program}\nprint(before == gc.get_threshold())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == str(not rarely), done.stderr
