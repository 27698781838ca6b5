"""What a machine does to a run: signals, full disks, odd environments, other devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from in_process import exit_code

from jaxgear import cli
from jaxgear.errors import GearError
from jaxgear.experiment.run import Config
from scripts import kill_runs

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.one_cache


def start(*flags, **options):
    """The short run of scripts/kill_runs.py as a process."""
    command = [sys.executable, "-m", "scripts.kill_runs", "train", *map(str, flags)]
    return subprocess.Popen(
        command,
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        | options,
    )


def finish(process, code=0):
    printed, complaint = process.communicate(timeout=120)
    assert process.returncode == code, complaint
    return printed, complaint


def within(*flags):
    """The same run in this process; its exit code."""
    return exit_code(kill_runs.train, "train", *flags)


def only(folder):
    (run,) = folder.glob("kill_runs-*")
    return run


@pytest.fixture(scope="module")
def straight(cache, tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        assert within(*kill_runs.TRAIN, "--out", out) == 0
    return only(out)


# SIGTERM, streamed, is in the next test.
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_last_step_and_the_run_goes_on_to_the_same_bits(
    number, straight, tmp_path
):
    process = start(*kill_runs.TRAIN, "--out", tmp_path)
    while not list(tmp_path.glob("*/checkpoints/000002/manifest.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, complaint = finish(process, 128 + number)
    run = only(tmp_path)
    assert complaint.splitlines() == [f"interrupted; continue with --resume {run}"]
    assert not (run / "lock").exists()
    assert not list(run.glob("**/*-tmp"))
    assert within("--resume", run) == 0
    assert kill_runs.outcome(run) == kill_runs.outcome(straight)


@pytest.mark.parametrize("backgrounds", ["", pytest.param("drawn", marks=pytest.mark.slow)])
def test_a_streamed_run_is_the_same_run_and_goes_on_in_memory(backgrounds, straight, tmp_path):
    """To the bit; interrupted within an epoch, it is resumed at the same batch, streamed or not."""
    flags, whole = [*kill_runs.TRAIN, "--backgrounds", backgrounds], straight
    if backgrounds:
        assert within(*flags, "--out", tmp_path / "straight") == 0
        whole = only(tmp_path / "straight")
    process = start(*flags, "--stream", "--out", tmp_path)
    while not list(tmp_path.glob("*/checkpoints/000002/manifest.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = finish(process, 128 + signal.SIGTERM)
    assert "streaming: decodes 0.0 GB of pixels batch by batch (--stream)" in printed
    run = only(tmp_path)
    assert within("--resume", run, "--no-stream") == 0
    assert kill_runs.outcome(run) == kill_runs.outcome(whole)


def test_the_second_signal_ends_it_at_once():
    code = """if True:
        import signal, time
        from jaxgear.machine.signals import deferred_signals
        with deferred_signals() as signals:
            print("ready", flush=True)
            while not signals.received:
                time.sleep(0.01)
            print("first", flush=True)
            time.sleep(60)  # a save that takes long
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for word in ("ready", "first"):
        assert process.stdout.readline() == f"{word}\n"
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    process.stdout.close()


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, capfd):
    """A disk of 1 MB: exit 5 at the first save that does not fit; what was saved before loads."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        flags = ["--epochs", 200, "--patience", 200, "--out", disk]
        assert within(*kill_runs.TRAIN, *flags) == 5
        (line,) = capfd.readouterr().err.splitlines()
        run = only(disk)
        assert str(run) in line
        assert "No space left on device" in line
        saved = sorted(p.parent.name for p in run.glob("checkpoints/*/manifest.json"))
        assert saved
        subprocess.run([*mount[:-3], "remount,size=8m", *mount[-2:]], check=True)
        epochs = int(saved[-1]) + 2
        assert within("--resume", run, "--epochs", epochs) == 0
        assert f"epoch {int(saved[-1]) + 1:3d}" in capfd.readouterr().out
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_odd_environment_is_no_obstacle(straight, tmp_path):
    """No home, no terminal, no locale, no cache: the same bits, no escape codes."""
    bare = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C", "NO_COLOR": "1"}
    bare["TMPDIR"] = str(tmp_path)  # where it draws, having no cache
    bare["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")  # other programs have other bits
    out = tmp_path / "with space Ü雪"
    printed, complaint = finish(start(*kill_runs.TRAIN, "--out", out, env=bare))
    assert "\x1b" not in printed + complaint
    run = only(out)
    assert (run / "curves.png").stat().st_size > 1000
    assert kill_runs.outcome(run) == kill_runs.outcome(straight)


def test_another_seed_is_another_run_and_its_place_may_be_relative(straight, tmp_path):
    out = Path(os.path.relpath(tmp_path))
    assert within(*kill_runs.TRAIN, "--epochs", 2, "--seed", 1, "--out", out) == 0
    ours = kill_runs.outcome(only(tmp_path))
    assert ours["state.json"] != kill_runs.outcome(straight)["state.json"]


def test_a_run_can_start_from_the_weights_of_another(straight, tmp_path, capfd):
    """Those that fit, by name and shape; the rest is listed. None: an error."""
    flags = [*kill_runs.TRAIN, "--epochs", 1, "--init-from", straight, "--out", tmp_path]
    assert within(*flags) == 0
    assert "7 of 7 leaves taken" in capfd.readouterr().out
    assert within(*kill_runs.TRAIN, "--init-from", tmp_path / "no") == 5
    assert str(tmp_path / "no") in capfd.readouterr().err


def test_checkpoints_move_between_one_device_and_eight(tmp_path):
    """Saved from eight, parameters sharded over them, and read by one; and back."""
    code = """if True:
        import sys
        from pathlib import Path
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        sys.path.insert(0, "tests/training")
        from test_checkpoints import make_state
        from jaxgear.training.runs.checkpoints import Checkpoints
        mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        def spread(leaf):
            split = leaf.ndim == 4 and leaf.shape[-1] % 8 == 0
            return jax.device_put(leaf, NamedSharding(mesh, P(None, None, None, "data") if split else P()))
        state = jax.tree.map(spread, make_state(width=8, seed=3))
        assert len(state.params["layers_0"]["conv"]["kernel"].sharding.device_set) == 8
        with Checkpoints(Path(sys.argv[1]) / "eight") as checkpoints:
            checkpoints.save(state, 1, 1.0)
        with Checkpoints(Path(sys.argv[1]) / "one") as checkpoints:
            back = checkpoints.restore(jax.tree.map(spread, make_state(width=8, seed=4)), 1)
        kernel = back.params["layers_0"]["conv"]["kernel"]
        assert len(kernel.sharding.device_set) == 8
        np.testing.assert_array_equal(kernel, state.params["layers_0"]["conv"]["kernel"])
    """  # noqa: E501
    sys.path.insert(0, str(ROOT / "tests/training"))
    from test_checkpoints import leaves, make_state

    from jaxgear.training.runs.checkpoints import Checkpoints

    state = make_state(width=8, seed=3)
    with Checkpoints(tmp_path / "one") as checkpoints:
        checkpoints.save(state, 1, 1.0)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    flags = {"XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Checkpoints(tmp_path / "eight") as checkpoints:
        restored = checkpoints.restore(make_state(width=8, seed=4), 1)
    for a, b in zip(leaves(restored), leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_little_memory_names_the_flag():
    def experiment(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    with pytest.raises(
        GearError, match=r"--batch-size 256 did not fit.* try --batch-size 128"
    ) as e:
        cli._within_memory(experiment, Config(batch_size=256))
    assert e.value.exit_code == 1


@pytest.mark.slow
def test_no_run_is_lost_to_five_kills(capsys, monkeypatch, tmp_path):
    # Not with the programs of other tests, of which a kill may leave one half written.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert kill_runs.main(["--kills", "5"]) == 0
    *_, counts, last = capsys.readouterr().out.splitlines()
    assert last == "5 killed, 0 lost, 0 different"
    assert json.loads(counts)["finished"] >= 1
