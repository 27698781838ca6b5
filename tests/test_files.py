"""A file is the old one or the new one."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxgear import files, outputs
from jaxgear.errors import UsageError


def test_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "é.json"
    files.write_json(path, {"a": "雪"})
    files.write_json(path, {"a": 1.5})
    assert path.read_text() == '{\n "a": 1.5\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["é.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_is_followed_and_the_mode_stays(tmp_path):
    """Also a link to a link, and one to a file that is not there yet."""
    real = tmp_path / "far" / "real"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o664)
    for name, to in (("one", real), ("two", "one"), ("new", "far/new")):
        (tmp_path / name).symlink_to(to)
    files.write_text(tmp_path / "two", "2")
    files.write_text(tmp_path / "new", "3")
    assert (real.read_text(), mode(real)) == ("2", 0o664)
    assert (tmp_path / "far/new").read_text() == "3"
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "new"))
    assert sorted(path.name for path in real.parent.iterdir()) == ["new", "real"]


def test_a_file_of_another_group_stays_its(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    try:
        os.chown(path, -1, 12345)
    except PermissionError:
        pytest.skip("root alone may give files away")
    files.write_text(path, "new")
    assert (path.read_text(), path.stat().st_gid) == ("new", 12345)


def write_output(flag, path, content):
    with outputs.Output(flag, path) as output:
        output.write(content)


def test_a_pipe_stays_and_its_reader_gets_the_bytes(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_output("--csv", pipe, "a" * 100_000)  # more than a pipe holds
    reader.join(10)
    assert got == [b"a" * 100_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_nobody_reads_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"--csv .*pipe: cannot be written \(nobody reads this"):
        write_output("--csv", tmp_path / "pipe", "a")


def test_devices_are_written_to(tmp_path):
    """A terminal gets the bytes, /dev/null takes any number of outputs, a full device is named."""
    controller, terminal = os.openpty()
    device = Path(os.ttyname(terminal))
    write_output("--json", device, "shown\n")
    assert os.read(controller, 100) == b"shown\r\n"
    assert stat.S_ISCHR(device.stat().st_mode)
    null = Path("/dev/null")
    with outputs.outputs({"--csv": null, "--json": null}) as opened:
        opened["--csv"].write("a")
    assert stat.S_ISCHR(null.stat().st_mode)
    with pytest.raises(UsageError, match=r"--csv /dev/full: cannot be written \(No space left"):
        write_output("--csv", Path("/dev/full"), "a")
    os.close(controller)
    os.close(terminal)


def test_what_is_no_place_for_a_file_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name, why in (("loop", "symbolic"), ("file/a", "Not a dir"), ("no/a", "no folder"), (".",
                      "it is a folder")):  # fmt: skip
        with pytest.raises(UsageError, match=f"--csv .*: cannot be written .*{why}"):
            write_output("--csv", tmp_path / name, "a")


def test_an_output_to_which_nothing_is_written_stays_as_it_was(tmp_path):
    (tmp_path / "old").write_text("old")
    with outputs.outputs({"--csv": tmp_path / "old", "--json": tmp_path / "new", "--out": None}):
        print("work")
    assert (tmp_path / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_two_outputs_of_one_name_are_refused(tmp_path):
    (tmp_path / "link").symlink_to("a")
    for one, other in (("a", "a"), ("a", "link"), ("link", "../" + tmp_path.name + "/a")):
        named = {"--csv": tmp_path / one, "--json": tmp_path / other}
        with pytest.raises(UsageError, match="--csv is written there"), outputs.outputs(named):
            pass
    with (
        pytest.raises(UsageError, match="--csv is written there"),
        outputs.outputs({"--csv": Path("-"), "--json": Path("-")}),
    ):
        pass


def test_standard_output_has_the_file_alone(capsysbinary):
    with outputs.outputs({"--json": Path("-")}) as opened:
        print("for people")
        opened["--json"].write("{}\n")
    assert capsysbinary.readouterr() == (b"{}\n", b"for people\n")
    print("after")
    assert capsysbinary.readouterr().out == b"after\n"


WORK = """
import sys
from pathlib import Path
from jaxgear.cli import exit_with
from jaxgear.outputs import outputs
def command():
    with outputs({f"--{i}": Path(name) for i, name in enumerate(sys.argv[1:])}) as files:
        for number in range(20_000):
            print("a line for people", number)
            for file in files.values():
                file.write(f"{number}\\n")
exit_with(command)
"""


def environment():
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def start(names, folder, **streams):
    command = [sys.executable, "-c", WORK, *names]
    return subprocess.Popen(command, cwd=folder, env=environment(), **streams)


def read_five_bytes(names, folder):
    """What `| head -c 5` does; the exit code of the work."""
    with start(names, folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as work:
        work.stdout.read(5)
        work.stdout.close()
        assert b"rror" not in work.stderr.read()
        return work.wait(60)


@pytest.mark.parametrize("names", [["a"], ["a", "-"], ["-", "a"]], ids=" ".join)
def test_a_closed_standard_output_loses_no_other_file(tmp_path, names):
    assert read_five_bytes(names, tmp_path) == 0
    assert (tmp_path / "a").read_text().split() == [str(n) for n in range(20_000)]


@pytest.mark.parametrize("names", [[], ["-"]], ids=["nothing", "stdout"])
def test_where_nothing_else_is_asked_for_the_work_ends_with_its_reader(tmp_path, names):
    assert read_five_bytes(names, tmp_path) == 1


@pytest.mark.parametrize("name", ["/dev/stdout", "-"])
def test_the_file_behind_standard_output_keeps_all_that_is_written(tmp_path, name):
    with (tmp_path / "out").open("wb") as out:
        assert start([name], tmp_path, stdout=out, stderr=subprocess.DEVNULL).wait(60) == 0
    assert (tmp_path / "out").read_text().split() == [str(n) for n in range(20_000)]


def test_a_standard_output_that_was_closed_before_is_no_traceback(tmp_path):
    for names, code in ((["a"], 0), (["-"], 2)):
        command = ["sh", "-c", 'exec "$0" "$@" >&-', sys.executable, "-c", WORK, *names]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
        assert done.stderr.count(b"\n") == (code == 2)
        assert done.returncode == code
    assert len((tmp_path / "a").read_text().split()) == 20_000


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "NaN", "[Infinity]", "-Infinity", "1e400", '{"a": 1, "a": 2}', "\xff",
     "[" * 200_000 + "]" * 200_000, '{"a":' * 200_000, "9" * 10_000, b"\xff\xfe\xff"],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_json_that_others_would_read_otherwise_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        files.from_json(text)


def test_json_of_ours_is_read():
    value = {"a": [1, 2.5, None, True, "ü\n"], "b": {"a": 1e308}}
    assert files.from_json(files.to_json(value)) == value


def test_only_regular_files_of_a_size_are_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert files.read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="over the limit"):
        files.read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            files.read_regular(other, 5)
