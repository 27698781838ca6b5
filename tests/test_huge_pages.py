"""A program starts once more, to be given huge pages; whoever imports it does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgear.machine import huge_pages

ROOT = Path(__file__).parents[1]


@pytest.fixture
def started(monkeypatch):
    """What was started, on a machine that has huge pages."""
    calls = []
    monkeypatch.setattr(huge_pages, "_on_request", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # and taken back afterwards
    return calls


def test_it_starts_itself_once_with_the_same_arguments(started, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "-m", "a.b", "--flag", "a b"])
    huge_pages.restart_with_huge_pages()
    same = [sys.executable, "-X", "dev", "-m", "a.b", "--flag", "a b"]
    assert started == [(sys.executable, same)]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    huge_pages.restart_with_huge_pages()
    assert len(started) == 1


def test_other_tunables_stay_and_one_that_was_set_is_kept(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    huge_pages.restart_with_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # somebody's choice
    huge_pages.restart_with_huge_pages()
    assert len(started) == 1


@pytest.mark.parametrize(("platform", "has"), [("linux", False), ("darwin", True)])
def test_nothing_happens_where_there_are_none(platform, has, started, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(huge_pages, "_on_request", lambda: has)
    huge_pages.restart_with_huge_pages()
    assert started == []
    assert os.environ["GLIBC_TUNABLES"] == ""


@pytest.mark.parametrize("command", [["-m", "experiments.show"], ["show.py"]])
def test_an_experiment_that_is_run_has_them_and_one_that_is_imported_does_not(command, tmp_path):
    package = tmp_path / "experiments"
    package.mkdir()
    shutil.copy(ROOT / "experiments/__init__.py", package)
    (package / "show.py").write_text(
        "import os, sys; print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1])"
    )
    (tmp_path / "show.py").write_text("from experiments import show")
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, *command, "a b"], cwd=tmp_path, env=env,
                          capture_output=True, text=True)  # fmt: skip
    run = command[0] == "-m" and huge_pages._on_request()
    assert done.stdout.strip() == f"{'glibc.malloc.hugetlb=1' if run else None} a b", done.stderr


OWN = """
import dataclasses, os, pathlib
from jaxgear import cli
from jaxgear.experiment.config import Config

@dataclasses.dataclass(frozen=True)
class Own(Config):
    "Mine."

def main(config):
    print(os.environ.get("GLIBC_TUNABLES"), config.seed, "xla_cpu" in os.environ["XLA_FLAGS"])
    return pathlib.Path()

if __name__ == "__main__":
    cli.run_experiment(main, Own)
"""


def test_an_experiment_file_of_ones_own_has_them_too(tmp_path):
    """It starts anew after its flags are read, so a mistake is told at once."""
    (tmp_path / "own.py").write_text(OWN)
    env = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
    env |= {"PYTHONPATH": str(ROOT)}
    for command in (["own.py"], ["-m", "own"]):
        done = subprocess.run([sys.executable, *command, "--seed", "3"], cwd=tmp_path, env=env,
                              capture_output=True, text=True)  # fmt: skip
        pages = "glibc.malloc.hugetlb=1" if huge_pages._on_request() else None
        assert done.stdout == f"{pages} 3 True\n", done.stderr
