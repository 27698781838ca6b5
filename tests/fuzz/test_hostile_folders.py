"""Random trees and names: `read_folder` returns or raises DataError, accounts for every file once,
and leaves everything as it was.
"""

import os
import shutil
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import limited, no_warnings, state
from pictures import empty_cache, encoded, scene

from jaxgear.data.folder.read import read_folder
from jaxgear.data.splits.clean import require_clean
from jaxgear.errors import DataError
from jaxgear.text import printable, text_of

PICTURES = [encoded(scene(k, 12, 16), kind) for k, kind in enumerate(("PNG", "JPEG", "WEBP"))]
CONTENTS = [*PICTURES, PICTURES[1][:100], b"", b"<html>", b"words"]

LETTERS = st.text(st.sampled_from("aAbBzZ019 .-_éÉß雪Ü\u0301\u200b\u202e\n\t\x1b\\'\"*?[$"),
                  min_size=1, max_size=6)  # fmt: skip
KNOWN = st.sampled_from(
    ["train", "val", "test", "valid", "Train", "axes", "Axes", "boots", "10", "2", "x.jpg", "x.JPG",
     ".hidden", "_old", "__MACOSX", "Thumbs.db", ".DS_Store", "é", "e\u0301", "caf\udce9.jpg",
     "n" * 255, "é" * 127, "-rf", "*", "con", "~", " "]
)  # fmt: skip
NAMES = (LETTERS | KNOWN | st.text(string.printable, min_size=1, max_size=20)).filter(
    lambda name: "/" not in name and "\0" not in name and name not in (".", "..")
    and len(os.fsencode(name)) <= 255
)  # fmt: skip
LINKS = st.sampled_from(["up", "self", "root", "nowhere", "outside", "sibling", "file"])
FILES = st.tuples(st.just("file"), st.sampled_from(CONTENTS))
NODES = st.recursive(
    FILES | FILES | st.tuples(st.just("link"), LINKS),
    lambda below: st.tuples(st.just("folder"), st.dictionaries(NAMES, below, max_size=4)),
    max_leaves=12,
)
FOLDERS = st.tuples(st.just("folder"), st.dictionaries(NAMES, NODES, min_size=1, max_size=5))
TREES = st.dictionaries(NAMES, FOLDERS, max_size=4) | st.dictionaries(NAMES, NODES, max_size=4)


def build(folder: Path, tree: dict, root: Path) -> None:
    folder.mkdir()
    for name, (kind, what) in tree.items():
        path = folder / name
        try:
            if kind == "folder":
                build(path, what, root)
            elif kind == "file":
                path.write_bytes(what)
            else:
                target = {
                    "up": folder.parent, "self": path, "root": root, "nowhere": root / "no/where",
                    "outside": root.parent / "outside", "sibling": folder / "axes",
                    "file": root.parent / "outside/0.png",
                }[what]  # fmt: skip
                path.symlink_to(target)
        except OSError:  # a file system that takes no such name
            continue


def accounted(root: Path, found) -> None:
    """Every file below `root` is in one list, by its path or that of a folder above it."""
    listed = [record.path for record in found.records]
    listed += [text_of(refused.path) for refused in found.refused] + list(found.ignored)
    assert len(set(listed)) == len(listed)
    closed = {text_of(one.path) for one in found.refused} | set(found.ignored)
    for folder, _, names in os.walk(root):
        for name in names:
            path = text_of((Path(folder) / name).relative_to(root).as_posix())
            parts = path.split("/")
            above = {"/".join(parts[:k]) for k in range(1, len(parts) + 1)}
            assert path in listed or above & closed, path


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What links out of the folder lead to."""
    folder = tmp_path_factory.mktemp("trees") / "outside"
    folder.mkdir()
    for k, data in enumerate(PICTURES):
        (folder / f"{k}.png").write_bytes(data)
    return folder


@pytest.mark.parametrize("examples", [60, pytest.param(350, marks=pytest.mark.slow)])
def test_trees(examples, outside):
    numbers = iter(range(10**6))
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(TREES)
    def check(tree):
        root = outside.parent / f"{examples}-{next(numbers)}"
        build(root, tree, root)
        before = state(outside.parent)
        try:
            with limited():
                found = read_folder(root, size=16, min_classes=1)
        except DataError as error:
            outcomes["refused"] += 1
            message = str(error)
        else:
            outcomes["read"] += 1
            message = str(root) + "".join(f"{one.path}{one.reason}" for one in found.refused)
            accounted(root, found)
            assert found.classes == tuple(sorted(found.classes))
            assert all(unicodedata.is_normalized("NFC", name) for name in found.classes)
            with empty_cache():
                assert read_folder(root, size=16, min_classes=1) == found
            skipped(found)
            message += told(found)
        message.encode()  # nothing in it that cannot be printed
        assert str(root) in message
        assert state(outside.parent) == before
        shutil.rmtree(root)

    with no_warnings():
        check()
    assert min(outcomes.values()) > examples / 10, outcomes


def told(found) -> str:
    """What a run says of the folder: nothing in it moves the cursor."""
    try:
        require_clean(found)
    except DataError as error:
        lines = str(error).split("\n")
        assert all(line == printable(line) for line in lines)
        return lines[0]
    return ""


def skipped(found) -> None:
    """Going on without what is bad loses no file of the count."""
    try:
        kept = require_clean(found, "skip")
    except DataError as error:
        assert "no usable picture is left" in str(error)  # noqa: PT017
    else:
        assert len(kept.records) + len(kept.refused) == len(found.records) + len(found.refused)
