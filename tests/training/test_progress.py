"""A bar on a terminal, plain lines elsewhere, silence when asked."""

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import time
import jax.numpy as jnp
from jaxgear.training.history import Row
from jaxgear.training.progress import Progress
from jaxgear.training.state import Metrics
ones = Metrics(jnp.ones(()), jnp.ones(()), jnp.ones(()))
with Progress(2) as progress:
    progress.say("compiled")
    for step in range(1, 5):
        progress.step(1, step, 4, ones, 10)
        time.sleep(0.3)
    progress.epoch(Row(1, 4, 1.0, 2.0, 0.5, 0.25, 0.1, 1.0), 60.0, 1)
    progress.epoch(Row(2, 8, 1.0, 2.0, 0.5, 0.25, 0.1, 1.0), 60.0, 1)
"""


def test_terminal_shows_epoch_loss_rate_and_the_line_of_the_epoch():
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=child, stderr=child, cwd=ROOT, env=environment
    )
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # how Linux says that the other end was closed
            break
        if not part:
            break
        seen += part
    os.close(parent)
    assert process.wait() == 0
    text = seen.decode()
    for word in ("epoch 1/2", "loss 1.000", "images/s", "4/8", "epoch   1  loss 1.0000 train"):
        assert word in text


def test_elsewhere_there_are_plain_lines_alone():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "compiled"
    assert done.stdout.splitlines()[1].startswith("epoch   1  loss 1.0000 train 2.0000 val")
    assert done.stdout.count("as optimised") == 1
    assert len(done.stdout.splitlines()) == 3
