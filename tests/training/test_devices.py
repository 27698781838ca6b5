"""Several devices: what they compute, asked in a process that has eight."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config
from jaxgear.machine import devices

FILE = Path(__file__).with_name("eight_devices.py")


def test_on_eight_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILE]
    done = subprocess.run(
        command, cwd=FILE.parents[2], env=os.environ | flags, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout or "100%" in done.stdout


def test_one_device_is_no_mesh():
    tree = {"w": np.ones((4, 2), np.float32)}
    placed = devices.place(tree, devices.all_devices())
    assert len(placed["w"].sharding.device_set) == 1
    assert devices.local(placed)["w"] is placed["w"]
    assert devices.highest(3) == 3
    assert devices.from_first("run") == "run"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"hosts": 2}, "--coordinator ADDRESS:PORT goes with --hosts"),
        (
            {"hosts": 2, "host_id": 2, "coordinator": "a:1"},
            "--host-id 2: must be at least 0 and below --hosts",
        ),
        ({"microbatch": 5}, "--microbatch 5: must divide --batch-size 48"),
    ],
)
def test_flags_that_do_not_go_together(flags, complaint):
    with pytest.raises(UsageError, match=complaint):
        Config(**flags).check()
