"""Two processes on one machine train as one: they agree with one, are killed, and go on as one."""

import csv
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgear.files import read_json
from jaxgear.training.runs.checkpoints import Checkpoints
from scripts import kill_runs
from tests import sharded_state

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def start(*flags, hosts=2, last=(), module=("scripts.kill_runs", "train")):
    """The processes of a short run (scripts/kill_runs.py); `last` are flags of the last alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    together = ["--hosts", hosts, "--coordinator", coordinator] if hosts > 1 else []
    command = [sys.executable, "-m", *module, *flags, *together]
    return [
        subprocess.Popen(
            [
                *map(str, command),
                *(["--host-id", str(host)] if hosts > 1 else []),
                *(last if host == hosts - 1 else []),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(hosts)
    ]


def finish(processes, *codes):
    """Waits; what each printed and complained of."""
    try:
        found = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    # All at once: the first to complain is seldom the one that began.
    assert [process.returncode for process in processes] == [*codes], found
    return found


def wait_for_epoch(out, epoch, processes):
    deadline = time.time() + 90
    while not list(out.glob(f"*/checkpoints/{epoch:06d}/manifest.json")):
        assert time.time() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    return next(out.glob("kill_runs-*"))


def history(run):
    with (run / "history.csv").open() as file:
        rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    return np.array([[row["epoch"], row["train_loss"], row["val_loss"]] for row in rows])


FLAGS = [*kill_runs.TRAIN, "--epochs", 30, "--patience", 30]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    finish(start(*FLAGS, "--out", out, hosts=1), 0)
    return next(out.glob("kill_runs-*"))


def test_two_hosts_agree_with_one_and_one_of_them_speaks(straight, tmp_path):
    (said, _), (silent, _) = finish(start(*FLAGS, "--out", tmp_path), 0, 0)
    assert "test accuracy" in said
    assert "epoch" not in silent
    (run,) = tmp_path.glob("kill_runs-*")
    np.testing.assert_allclose(history(run), history(straight), atol=2e-3)
    test, expected = (read_json(path / "test.json") for path in (run, straight))
    assert test["n"] == expected["n"]
    assert test["loss"] == pytest.approx(expected["loss"], abs=0.02)


def test_two_hosts_stream_and_paste_on_the_same_backgrounds_as_one(tmp_path):
    """Masks, pasted validation pictures and the bank are those of one."""
    flags = [*kill_runs.TRAIN, "--epochs", 3, "--backgrounds", "drawn", "--stream"]
    finish(start(*flags, "--out", tmp_path / "one", hosts=1), 0)
    finish(start(*flags, "--out", tmp_path / "two"), 0, 0)
    one, two = (next((tmp_path / name).glob("kill_runs-*")) for name in ("one", "two"))
    np.testing.assert_allclose(history(two), history(one), atol=2e-3)
    expected, test = (read_json(path / "test.json") for path in (one, two))
    assert test["accept_from"] == pytest.approx(expected["accept_from"], abs=0.05)


def test_each_host_writes_half_of_a_checkpoint_and_any_number_reads_it(tmp_path):
    """In both layouts; the leaves are the same bits on two hosts and on one."""
    found = finish(start(tmp_path, module=("tests.sharded_state",)), 0, 0)
    assert all("equal" in said for said, _ in found)
    for layout in sharded_state.LAYOUTS:
        sizes = [
            sum(file.stat().st_size for file in tmp_path.glob(f"{layout}/000001/*/*_{host}/**/*"))
            for host in (0, 1)
        ]
        state = sharded_state.made(1)
        leaves = sum(leaf.nbytes for leaf in jax.tree.leaves(state.replace(key=None)))
        assert sum(sizes) == pytest.approx(leaves, rel=0.1)  # nothing twice
        assert sizes[0] == pytest.approx(sizes[1], rel=0.2)
        with Checkpoints(tmp_path / layout) as checkpoints:
            restored = checkpoints.restore(sharded_state.made(2), 1)
        sharded_state.assert_equal(restored, state)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_dies_ends_the_other_and_one_process_goes_on(straight, victim, tmp_path):
    """The survivor says how to go on; what was saved is resumed by a single process."""
    processes = start(*FLAGS, "--out", tmp_path)
    run = wait_for_epoch(tmp_path, 3, processes)
    processes[victim].kill()
    codes = [1, 1]
    codes[victim] = -signal.SIGKILL
    found = finish(processes, *codes)
    complaint = found[1 - victim][1]
    assert f"another host ended or cannot be reached; {saved(run)}" in complaint
    assert "Traceback" not in complaint
    finish(start("--resume", run, hosts=1), 0)
    np.testing.assert_allclose(history(run), history(straight), atol=2e-3)


@pytest.mark.parametrize(("victim", "pause"), [(0, 0), (1, 7)])
def test_a_host_that_freezes_ends_the_other_but_a_slow_one_does_not(victim, pause, tmp_path):
    """Stopped, its connections stay open. A pause of twice the limit, before that, ends nothing."""
    processes = start(*FLAGS, "--out", tmp_path, module=("tests.frozen_host", pause))
    run = wait_for_epoch(tmp_path, 3, processes)  # after the pause
    processes[victim].send_signal(signal.SIGSTOP)
    try:
        _, complaint = processes[1 - victim].communicate(timeout=30)
    finally:
        processes[victim].kill()
        processes[victim].communicate()
    assert processes[1 - victim].returncode == 1, complaint
    # On a busy machine, host 0 may answer for a moment after its last sign of life is 3 s old.
    silent = {0: "host 0 (has not answered|was silent)", 1: "host 1 was silent"}[victim]
    said = f"cannot be reached; {re.escape(saved(run))} \\({silent} for 3 s\\)"
    assert re.search(said, complaint), complaint
    assert "Traceback" not in complaint
    assert "stack trace" not in complaint


def test_a_repeated_command_goes_on_after_each_loss_with_the_hosts_that_are_left(
    straight, tmp_path
):
    """As a scheduler repeats it: two hosts, one of them lost; one host, lost; two again."""
    command = [*FLAGS, "--out", tmp_path, "--resume", "latest"]
    for hosts, epoch in ((2, 3), (1, 8)):
        processes = start(*command, hosts=hosts)
        wait_for_epoch(tmp_path, epoch, processes)
        processes[-1].kill()
        for process in processes:
            process.communicate(timeout=120)
            assert process.returncode != 0
    finish(start(*command), 0, 0)
    (run,) = tmp_path.glob("kill_runs-*")
    np.testing.assert_allclose(history(run), history(straight), atol=2e-3)


def saved(run):
    return f"saved files are whole, start all hosts again with --resume {run}"


def test_a_signal_to_one_host_stops_both_and_a_run_of_one_goes_on_with_two(straight, tmp_path):
    (process,) = start(*FLAGS, "--out", tmp_path, hosts=1)
    run = wait_for_epoch(tmp_path, 2, [process])
    process.send_signal(signal.SIGTERM)
    finish([process], 128 + signal.SIGTERM)
    begun = len(history(run))
    processes = start("--resume", run)
    wait_for_epoch(tmp_path, begun + 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    (_, complaint), _ = finish(processes, 128 + signal.SIGTERM, 128 + signal.SIGTERM)
    assert f"interrupted; continue with --resume {run}" in complaint
    finish(start("--resume", run), 0, 0)
    np.testing.assert_allclose(history(run), history(straight), atol=2e-3)


def test_hosts_with_different_pictures_are_refused(tmp_path):
    processes = start(*FLAGS, "--out", tmp_path, last=["--data", "drawn:72"])
    _, (_, complaint) = finish(processes, 1, 2)
    assert "--data drawn:72: host 0 sees other pictures there than this host" in complaint
