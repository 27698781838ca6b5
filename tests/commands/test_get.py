"""`jaxgear get`, and its older names."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxgear import cli
from jaxgear.data import photographs

ROOT = Path(__file__).parents[2]


def get(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["get", *map(str, arguments)])
    return stop.value.code


def test_photographs_from_a_zip(tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        archive.writestr("gear_images/a/0.jpeg", b"one")
    (tmp_path / "sums").write_text(f"{hashlib.sha256(b'one').hexdigest()}  a/0.jpeg\n")
    monkeypatch.setattr(photographs, "MANIFEST", tmp_path / "sums")
    monkeypatch.chdir(tmp_path)
    assert get("gear", "--from", "g.zip") == 0
    assert capsys.readouterr().out == f"{tmp_path}/data/gear_images: 1 of 1 pictures in place\n"
    assert Path("data/gear_images/a/0.jpeg").read_bytes() == b"one"
    assert get("gear", "--from", "none.zip", "--to", "other") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.zip: no such file" in line
    assert get("gear", "--form", "x") == get("pear") == get() == 2


@pytest.mark.parametrize("name", ["gear", "resnet"])
def test_the_older_commands_go_on_to_work(name):
    command = [sys.executable, "-m", f"scripts.get_{name}", "--from", "no/such/thing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == {"gear": 4, "resnet": 5}[name]
    assert done.stderr.startswith("error: no/such/thing: no such file")
    assert done.stderr.count("\n") == 1
