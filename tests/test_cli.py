"""Commands: what they print, what they write, and their exit codes."""

import argparse
import ast
import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from made_runs import write_run
from pictures import write_set
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.errors import UsageError, first_line
from jaxgear.experiment.config import Config
from jaxgear.experiment.flags import parse

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "line"),
    [("one\ntwo", "one"), ("\n one \n", "one"), (" \n", "ValueError"), ("a\x1b[2J", "a\\x1b[2J")],
)
def test_an_error_is_quoted_by_one_printable_line(text, line):
    assert first_line(ValueError(text)) == line


def write_folder(root, broken=False):
    rng = np.random.default_rng(0)
    for name in ("axes", "boots"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(root / name / f"{i}.png")
    (root / "axes" / "copy.png").write_bytes((root / "axes" / "0.png").read_bytes())
    (root / ".hidden").touch()
    if broken:
        (root / "axes" / "page.jpg").write_text("<html>not found</html>")
        (root / "boots" / "both.png").write_bytes((root / "axes" / "1.png").read_bytes())
    return root


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_check_describes_a_clean_folder(tmp_path, capsys):
    folder = write_folder(tmp_path / "set")
    assert call("check", folder, "--json", tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["classes"] == {"axes": 5, "boots": 4}
    assert (found["smallest_side"], found["largest_side"]) == (20, 24)
    assert found["duplicate_groups"] == [["axes/0.png", "axes/copy.png"]]
    assert found["ignored"] == [".hidden"]
    assert found["refused"] == found["conflicts"] == []
    assert "9 pictures in 2 classes" in capsys.readouterr().out


def test_check_lists_what_is_wrong_and_exits_with_4(tmp_path, capsys):
    folder = write_folder(tmp_path / "set", broken=True)
    assert call("check", folder) == 4
    printed = capsys.readouterr().out
    assert "axes/page.jpg" in printed
    assert "boots/both.png: same bytes as axes/1.png" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["check", "no/such"], 4, "no/such"),
        (["evaluate", "no/run", "no/such"], 5, "no/run"),
        (["evaluate", "no/run", "x", "--batch-size", "0"], 2, "--batch-size"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_mistakes(arguments, code, word, capsys):
    assert call(*arguments) == code
    assert word in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no/such"):
        cli.main(["check", "no/such", "--debug"])


def test_help_and_mistakes_import_nothing_heavy():
    code = (
        "import sys\nfrom jaxgear import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'jax', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    for argument in ("--help", "nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_names_that_a_terminal_cannot_print_are_replaced(tmp_path, encoding):
    """Of classes, pictures, folders and runs, in lines, warnings and errors."""
    folder = write_set(tmp_path / "Ü雪", {"axes": 2, "靴": 2})
    (folder / "靴/ж.jpg").write_text("text")
    make_bundle(classes=("axes", "靴")).save(tmp_path / "模型/model")
    write_run(tmp_path / "走る")
    model = tmp_path / "模型"
    got = io.BytesIO()
    terminal = io.TextIOWrapper(got, encoding=encoding, write_through=True)
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        assert call("check", folder) == 4
        assert call("predict", model, folder) == 4
        assert call("predict", model, folder, "--csv", tmp_path / "a.csv") == 4
        assert call("evaluate", model, folder, "--on-bad", "skip") == 0
        assert call("compare", tmp_path / "走る") == 0
        assert call("evaluate", model, tmp_path / "нет") == 4
    printed = got.getvalue().decode(encoding)
    assert printed.count(r"\u9774") > 8  # boots
    assert r"\u0436.jpg" in printed
    assert r"\u043d\u0435\u0442: no such folder" in printed
    assert "靴" in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_a_name_that_is_no_text_is_printed():
    """Of bytes that are not UTF-8, on a terminal of UTF-8."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stream), pytest.raises(SystemExit) as stop:
        cli.exit_with(lambda: print(os.fsdecode(b"run-\xff")))
    assert stop.value.code == 0
    assert stream.buffer.getvalue() == b"run-\\udcff\n"


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_full_disk_behind_standard_output_is_one_line(lines):
    code = f"from jaxgear import cli; cli.exit_with(lambda: print('a line\\n' * {lines}))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (No space left on device)\n"


def test_other_errors_of_files_keep_their_traceback():
    def command():
        print("a line")
        raise OSError(28, "No space left on device", "a.csv")

    with pytest.raises(OSError, match=r"a\.csv"):
        cli.exit_with(command)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "not enough memory"),
        (MemoryError("a.jpg: too little memory to decode it"), "(a.jpg: too little memory"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
            "--batch-size",
        ),
        (RuntimeError("can't start new thread"), "no thread can be started"),
        (ImportError("libcublas.so.12: cannot open"), "libcublas.so.12"),
    ],
)
def test_what_the_machine_lacks_is_one_line(error, word, capsys):
    def command():
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.exit_with(command)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert word in line
    with pytest.raises(type(error)):
        cli.exit_with(command, debug=True)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), AssertionError(), ValueError("x")])
def test_errors_of_our_own_keep_their_traceback(error):
    def command():
        raise error

    with pytest.raises(type(error)):
        cli.exit_with(command)


@pytest.mark.parametrize("platform", ["cuda", "no_such"])
def test_a_platform_that_is_not_there_is_named(tmp_path, platform):
    make_bundle().save(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-m", "jaxgear", "evaluate", tmp_path / "model", "no/such"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={platform}: not on this machine (")


def test_prepare_writes_a_set_that_can_be_read(tmp_path, capsys):
    from jaxgear.data.dataset import open_dataset

    folder = write_folder(tmp_path / "set")
    assert call("prepare", folder, tmp_path / "tfds", "--size", 16, "--workers", 2) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"train on it with --data tfds:gear@{tmp_path / 'tfds'}"
    assert err == ""
    assert call("prepare", folder, tmp_path / "tfds", "--workers", 0) == 2
    assert capsys.readouterr().err == "error: --workers 0: must be from 1 to 4096\n"
    for part in (1, 2):
        words = "--size", 16, "--workers", 1, "--part", f"{part}/2"
        assert call("prepare", folder, tmp_path / "parts", *words) == 0
    assert call("prepare", folder, tmp_path / "parts", "--size", 16, "--compare", "2/2") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("range 2 of 2: ")
    assert call("prepare", folder, tmp_path / "parts", "--size", 16, "--join") == 0
    capsys.readouterr()
    for words, error in [
        (("--part", "3/2"), "--part 3/2: must be I/N, with I from 1 to N"),
        (
            ("--part", "1/2", "--join"),
            "--part decodes, --compare groups and --join writes; give one of them",
        ),
        (("--compare", "1/2"), "--compare 1/2: not decoded yet: --part 1/2, 2/2"),
    ]:
        assert call("prepare", folder, tmp_path / "parts", *words) == 2
        assert capsys.readouterr().err == f"error: {error}\n"
    said = []
    read = open_dataset(f"tfds:gear@{tmp_path / 'tfds'}", size=16, seed=9, say=said.append)
    direct = open_dataset(str(folder), size=16, seed=0, say=said.append)
    assert sorted(read.splits) == sorted(direct.splits)  # its own, whatever the seed of the run
    for split in ("train", "val"):
        np.testing.assert_array_equal(read.split(split).images, direct.split(split).images)
        np.testing.assert_array_equal(read.split(split).labels, direct.split(split).labels)


def test_home_and_variables_in_flags_of_commands(tmp_path, capsys, monkeypatch):
    write_folder(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path / "set"))
    for folder in ("~/set", "$WHERE", "${WHERE}/../set"):
        assert call("check", folder, "--json", "~/found.json") == 0
        (tmp_path / "found.json").unlink()
    assert not (tmp_path / "~").exists()
    for folder, word in (("s3://b/set", "s3://b/set: its kind"), ("$UNSET/set", "UNSET is not")):
        assert call("check", folder) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert word in line


def test_home_and_variables_in_flags_of_experiments(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    flags = ["--data=~/pics", "--out=$DISK/runs", "--backgrounds=~/hills", "--init-from=~/old"]
    config = parse(Config, flags)
    assert (config.data, config.out) == ("/home/me/pics", "/disk/runs")
    assert (config.backgrounds, config.init_from) == ("/home/me/hills", "/home/me/old")
    with pytest.raises(UsageError, match="an address, not a path"):
        parse(Config, ["--out", "https://example.org/set"])
    assert parse(Config, ["--data", "drawn:60"]).data == "drawn:60"


def parsers(parser):
    """A parser of argparse and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


# In the help of each number: what it counts or measures.
UNITS = re.compile(
    "picture|pixel|epoch|pass|step|share|probability|port|process|seed|stage|times|number|rate|"
    "power|split|class|view|crop|channel"
)


def test_every_argument_of_every_command_has_a_help_text_with_its_unit():
    found = list(parsers(cli.parser_of()))
    assert len(found) > len(cli.COMMANDS)
    for parser in found:
        assert parser.prog.startswith("python -m jaxgear")
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            assert action.help, f"{parser.prog} {action.dest}"
            if action.type in (int, float):
                assert UNITS.search(action.help), f"{parser.prog} {action.dest}: {action.help}"


@pytest.mark.parametrize("name", ["scratch", "transfer", "reference", "optimizers"])
def test_every_flag_of_an_experiment_has_a_help_text_with_its_unit(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    config = importlib.import_module(f"experiments.{name}").Config
    with pytest.raises(SystemExit):
        parse(config, ["--help"])
    printed = capsys.readouterr().out
    for field in dataclasses.fields(config):
        flag = re.escape("--" + field.name.replace("_", "-"))
        kind, text = re.search(rf"{flag}\b(.*?)[\s│]{{2,}}(.*?)\(default", printed, re.S).groups()
        assert len(text.strip("│ \n")) > 10, flag
        if "INT" in kind or "FLOAT" in kind:
            assert UNITS.search(text), f"{flag}: {text}"


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        (["-m", "jaxgear", "predict"], "python -m jaxgear predict"),
        (["-m", "scripts.get_gear"], "python -m jaxgear get gear"),
        (["-m", "experiments.scratch"], "python -m experiments.scratch"),
        (["jaxgear", "check"], "jaxgear check"),
    ],
)
def test_usage_is_what_people_type(command, usage, tmp_path):
    if command[0] == "jaxgear":  # as pip writes it
        command[0] = tmp_path / "jaxgear"
        command[0].write_text("from jaxgear.cli import main\nmain()")
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.startswith(f"usage: {usage} [-h]"), done.stderr


def test_version(capsys):
    assert call("--version") == 0
    assert re.fullmatch(r"jaxgear \d+\.\d+\.\d+\n", capsys.readouterr().out)


# Files of the clone, and extras by the clone's way.
NOT_IN_THE_WHEEL = re.compile(
    r"\bscripts[./]|(?<!jaxgear\.)\bexperiments[./]\w|install -e|README|CONTRIBUTING|SECURITY"
)


def messages(path):
    """The string constants of a file, without docstrings; the help of fields is no docstring."""
    tree = ast.parse(path.read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_no_message_names_what_the_wheel_lacks():
    files = [*(ROOT / "jaxgear").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]
    files.remove(ROOT / "jaxgear/commands/runs/new.py")  # it replaces such names
    found = [(path.name, text) for path in files for text in messages(path)]
    assert len(found) > 1000
    assert [(name, text) for name, text in found if NOT_IN_THE_WHEEL.search(text)] == []
    assert NOT_IN_THE_WHEEL.search("`python -m scripts.get_gear`, or experiments.transfer")
