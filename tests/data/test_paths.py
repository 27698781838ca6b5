"""Home, variables and addresses in paths."""

import argparse
import re

import pytest

from jaxgear.errors import UsageError
from jaxgear.paths import expanded, path_argument


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~/pics", "/home/me/pics"),
        ("~", "/home/me"),
        ("$WORK/pics", "/data/pics"),
        ("${WORK}/a/$NAME", "/data/a/boots"),
        ("a~b/c~", "a~b/c~"),
        ("/x/~/y", "/x/~/y"),
        ("price$9.jpg", "price$9.jpg"),
        ("odd$NOTHING.jpg", "odd$NOTHING.jpg"),
        ("C:/pics", "C:/pics"),
        ("tfds:gear@/data", "tfds:gear@/data"),
        ("drawn:60", "drawn:60"),
        ("", ""),
    ],
)
def test_home_and_variables_in_paths(path, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("WORK", "/data")
    monkeypatch.setenv("NAME", "boots")
    assert expanded(path) == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/pics", "s3://bucket/pics: an address, not a path of this machine"),
        ("gs:/bucket", "gs://bucket: an address"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: an address"),
        ("~nobody-of-that-name/pics", "~nobody-of-that-name/pics: there is no such user"),
        ("$NOT_SET_AT_ALL/pics", "the variable NOT_SET_AT_ALL is not set"),
        ("a/${NOT_SET_AT_ALL}", "the variable NOT_SET_AT_ALL is not set"),
    ],
)
def test_what_is_no_path_of_this_machine_is_named(path, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        expanded(path)


def test_a_path_of_a_script_is_expanded_or_a_mistake_of_its_flag(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=path_argument)
    assert parser.parse_args(["--to=~/x"]).to == tmp_path / "x"
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--to", "s3://bucket/x"])
    assert stop.value.code == 2
    assert "argument --to: s3://bucket/x: an address" in capsys.readouterr().err
