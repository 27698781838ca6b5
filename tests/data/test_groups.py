"""Groups by near-duplicates, file, folder, or a common part of names."""

import pytest

from jaxgear.data.folder.read import Record
from jaxgear.data.splits.groups import groups_of
from jaxgear.errors import UsageError


def records(*paths: str, same: dict[str, str] | None = None) -> list[Record]:
    """Records with different bytes, except the records in `same`."""
    bytes_of = {path: (same or {}).get(path, path).encode().hex() for path in paths}
    return [Record(p, f"{bytes_of[p]:0<64}", 0, None, 1, 1, b"") for p in paths]


def together(by: str, *paths: str, same: dict[str, str] | None = None) -> list[list[str]]:
    """The paths of each group."""
    found: dict[str, list[str]] = {}
    for path, group in zip(paths, groups_of(records(*paths, same=same), by), strict=True):
        found.setdefault(group, []).append(path)
    return list(found.values())


def test_each_file_by_itself():
    paths = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    assert together("file", *paths) == [[path] for path in paths]
    assert together("file", *paths, same={"b/1.jpg": "a/1.jpg"}) == [
        ["a/1.jpg", "b/1.jpg"],
        ["a/2.jpg"],
    ]


def test_the_files_of_a_folder():
    assert together("folder", "a/x/1.jpg", "a/x/2.jpg", "a/y/1.jpg", "a/1.jpg") == [
        ["a/x/1.jpg", "a/x/2.jpg"],
        ["a/y/1.jpg"],
        ["a/1.jpg"],
    ]


def test_what_a_pattern_finds_in_names():
    paths = ["a/tent7_001.jpg", "a/tent7_002.jpg", "a/tent8_001.jpg", "a/other.jpg"]
    expected = [paths[:2], paths[2:3], paths[3:]]
    assert together(r"tent\d+", *paths) == expected
    assert together(r"/(.*)_\d+", *paths) == expected
    assert together(r"^(.*?)_|$", *paths[:3], "a/b.jpg", "a/c.jpg")[-1] == ["a/b.jpg", "a/c.jpg"]


def test_of_alternatives_in_a_pattern_the_one_that_matched_counts():
    paths = ["a/img12_1.jpg", "a/12_2.jpg", "a/img77_1.jpg", "a/78_1.jpg"]
    by = r"/img(\d+)_|/(\d+)_"
    assert together(by, *paths) == [paths[:2], paths[2:3], paths[3:]]


def test_copies_join_the_groups_that_they_are_in():
    paths = ["a/x/1", "a/x/2", "a/y/1", "a/y/2", "a/z/1", "a/z/2", "a/w/1"]
    same = {"a/y/1": "a/x/2", "a/z/2": "a/y/2"}
    assert together("folder", *paths, same=same) == [paths[:6], paths[6:]]


def test_a_pattern_that_cannot_work_is_named():
    with pytest.raises(UsageError, match=r"--group-by \(: .*a regular expression \("):
        groups_of(records("a/1"), "(")
    with pytest.raises(UsageError, match="--group-by frame: matches the path of no picture"):
        groups_of(records("a/1"), "frame")
