"""The wheel alone, from an empty folder: train, go on, predict; and nothing of the clone."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import COMPILES_FAST
from pictures import write_set

ROOT = Path(__file__).parents[1]
SHIPPED = ("scratch", "transfer", "optimizers", "reference")
TINY = ["--data", "drawn:60", "--image-size", "16", "--batch-size", "8", "--width", "0.1"]


def test_the_editable_install_has_the_experiments_under_jaxgear(tmp_path):
    origin = importlib.metadata.distribution("jaxgear").read_text("direct_url.json")
    if not origin or json.loads(origin)["url"] != ROOT.as_uri():
        pytest.skip("another copy of jaxgear is installed")
    code = (
        "import importlib.util as u; print(u.find_spec('jaxgear.experiments').origin, "
        "u.find_spec('experiments'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == f"{ROOT / 'experiments/__init__.py'} None\n", done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the clone, without what earlier builds have left there."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for name in ("jaxgear", "experiments"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, clone]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no network: pip cannot get setuptools to build a wheel")
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("jaxgear-*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel and what it needs, not our clone."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A folder that a .pth file names is searched, but its own .pth files (our clone) are not read.
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/python"


@pytest.mark.slow
def test_the_wheel_has_one_package_and_the_experiments_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxgear"}
        for path in (ROOT / "experiments").glob("*.py"):
            assert archive.read(f"jaxgear/experiments/{path.name}") == path.read_bytes()
    assert "jaxgear/data/gear.sha256" in names


@pytest.mark.slow
def test_an_empty_folder_is_enough(python, tmp_path):
    """With a package `experiments` of a stranger in it."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("raise SystemExit('of a stranger')")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["XLA_FLAGS"] = COMPILES_FAST

    def run(*command, code=0):
        done = subprocess.run(
            [python, *map(str, command)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run("-m", "jaxgear", "new", "mine")
    run("mine.py", *TINY, "--out", "runs", "--epochs", 1)
    (folder,) = (tmp_path / "runs").glob("mine-*")
    assert (folder / "experiment.py").read_text() == (tmp_path / "mine.py").read_text()
    run("mine.py", "--resume", folder, "--epochs", 2)
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    write_set(tmp_path, {"new": 3})
    assert len(run("-m", "jaxgear", "predict", folder, "new").splitlines()) == 3
    run("-m", "jaxgear", "new", "deep", "--like", "transfer")
    for words in (["deep.py"], *(["-m", f"jaxgear.experiments.{x}"] for x in SHIPPED)):
        assert run(*words, "--help").startswith(f"usage: python {' '.join(words)} [-h]")
    said = run("-m", "jaxgear", "get", "gear", "--from", "nothing", code=4)
    assert "scripts" not in said
    assert "No module named" in run("-m", "scripts.get_gear", code=1)
