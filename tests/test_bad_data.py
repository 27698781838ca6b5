"""A folder with something wrong with it, as a run meets it: named before the first step, or skipped
and counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.limits import state
from pictures import encoded, scene, write_set

ROOT = Path(__file__).parents[1]
BAD = {
    "empty.jpg": b"",
    "half.jpg": encoded(scene(70), "JPEG")[:900],
    "no_end.jpg": encoded(scene(71), "JPEG")[:-2],
    "notes.txt": b"a note",
    "page.jpg": b"<!doctype html><title>404</title>",
}


@pytest.fixture
def folder(tmp_path):
    root = write_set(tmp_path / "set", {"axes": 16, "boots": 16})
    for name, data in BAD.items():
        (root / "boots" / name).write_bytes(data)
    (root / "boots" / "folder.jpg").mkdir()
    (root / "boots" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "boots" / "Thumbs.db").write_bytes(b"")
    return root


def run(root, out, *flags):
    flags = ["--image-size", "16", "--batch-size", "8", "--epochs", "1", *flags]
    command = ["-m", "experiments.scratch", "--data", str(root), "--out", str(out), *flags]
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )


@pytest.mark.slow
def test_bad_pictures_stop_a_run_or_are_left_out(folder, tmp_path):
    before = state(folder)
    done = run(folder, tmp_path / "out")
    assert done.returncode == 4
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"error: {folder}: 7 files cannot be used")
    names = sorted([*BAD, "folder.jpg", "gone.jpg"])
    assert [line.split(":")[0] for line in rest] == [f"  boots/{name}" for name in names]
    assert not (tmp_path / "out").exists()

    done = run(folder, tmp_path / "out", "--on-bad", "skip")
    assert done.returncode == 0, done.stderr
    assert "7 unusable pictures left out" in done.stdout
    assert "1 hidden or system files left out: boots/Thumbs.db" in done.stdout
    (path,) = (tmp_path / "out").iterdir()
    pictures = json.loads((path / "splits.json").read_text())["pictures"]
    assert len(pictures) == 32
    assert state(folder) == before
