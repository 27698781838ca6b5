"""`jaxgear new`: an experiment file that works alone, and never replaces one."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxgear import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as `python -m jaxgear` has it
    return tmp_path


def new(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["new", *arguments])
    return stop.value.code


@pytest.mark.parametrize("name", ["mine", "mine.py"])
def test_the_file_names_itself_and_nothing_that_is_not_there(name, capsys):
    assert new(name) == 0
    assert capsys.readouterr().out.startswith("mine.py: change its `recipe`")
    source = Path("mine.py").read_text()
    assert "\n    python mine.py --data FOLDER\n" in source
    assert "python -m experiments" not in source
    assert "experiments/" not in source
    shipped = (ROOT / "experiments/scratch.py").read_text()
    differ = [a for a, b in zip(source.splitlines(), shipped.splitlines(), strict=True) if a != b]
    assert len(differ) == 2  # its command, and where other optimizers are


def test_it_is_run_as_a_file_with_its_own_name_in_every_line():
    """The usage, a hint where to edit; `-m` too."""
    assert new("mine") == 0
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    for command in (["mine.py"], ["-m", "mine"]):
        done = subprocess.run(
            [sys.executable, *command, "--optimizer", "adam"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        file, number = line.rpartition("change it in ")[2].split(", line ")
        assert Path(file).resolve() == Path("mine.py").resolve()
        assert "optimizer=" in Path("mine.py").read_text().splitlines()[int(number) - 1]
    command = [sys.executable, "mine.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("usage: python mine.py [-h]")


def test_another_experiment_imports_its_neighbours_from_the_package():
    assert new("mine", "--like", "transfer") == 0
    source = Path("mine.py").read_text()
    assert "from jaxgear.experiments import finetune\n" in source
    assert "from ." not in source
    assert "python mine.py --data FOLDER --finetune 4" in source


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a-b", "not a name for a Python file"),
        ("../mine", "not a name"),
        ("class", "not a name"),
        ("", "not a name"),
        ("jax", "would hide the module jax"),
        ("random.py", "would hide the module random"),
        ("there", "there.py: exists already"),
    ],
)
def test_a_bad_name_is_one_line_and_writes_nothing(name, word, capsys, empty_folder):
    Path("there.py").write_text("mine")
    assert new(name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert [path.name for path in empty_folder.iterdir()] == ["there.py"]
    assert Path("there.py").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_line(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    assert new("mine") == 2
    assert (
        capsys.readouterr().err == "error: mine.py: cannot be written (No space left on device)\n"
    )
