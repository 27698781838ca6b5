"""A file is the old one or the new one."""

import os
from pathlib import Path

import pytest

from jaxgear import files


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
    with pytest.raises(OSError, match="larger than"):
        files.read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            files.read_regular(other, 5)
