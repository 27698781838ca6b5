"""A file is the old one or the new one."""

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
