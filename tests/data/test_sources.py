"""Files, folders and patterns, in an order that does not depend on the file system."""

import os
from pathlib import Path

import pytest

from jaxgear.data.sources import find_pictures
from jaxgear.data.walk import Refused, printable
from jaxgear.errors import DataError


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.jpg", "b/1.jpg", "b/.hidden", "b/deep/é.png", "a.jpg", "odd[1].jpg", "c d.x"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a.jpg"], ["a.jpg"]),
        (["missing.jpg", "a.jpg"], ["missing.jpg", "a.jpg"]),
        (["b"], ["b/1.jpg", "b/2.jpg", "b/deep/é.png"]),
        (["b/*.jpg"], ["b/1.jpg", "b/2.jpg"]),
        (["**/*.jpg"], ["a.jpg", "b/1.jpg", "b/2.jpg", "odd[1].jpg"]),
        (["odd[1].jpg"], ["odd[1].jpg"]),  # a name, not a pattern, where there is such a file
        (["b/*"], ["b/1.jpg", "b/2.jpg", "b/deep/é.png"]),
        (["b/2.jpg", "b", "./b/1.jpg"], ["b/2.jpg", "b/1.jpg", "b/deep/é.png"]),
    ],
)
def test_finds(pictures, sources, expected):
    assert list(map(str, find_pictures(sources))) == expected


@pytest.mark.parametrize("source", ["nothing/*.jpg", "empty", "."])
def test_nothing_found_is_an_error_by_name(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(DataError, match=rf"^{source.replace('*', '.')}: ") as error:
        find_pictures([source])
    assert "\n" not in str(error.value)


def test_a_loop_of_links_ends(pictures):
    Path("b/again").symlink_to(pictures / "b", target_is_directory=True)
    assert len(find_pictures(["b"])) == 3


def test_what_cannot_be_a_picture_stays_in_the_list(pictures):
    Path("b/folder.jpg").mkdir()
    Path(os.fsdecode(b"b/\xff.jpg")).touch()
    refused = [one for one in find_pictures(["b"]) if isinstance(one, Refused)]
    assert [(one.path, one.reason) for one in refused] == [
        ("b/\\udcff.jpg", "name that is not UTF-8"),
        ("b/folder.jpg", "a folder, not a picture"),
    ]


def test_names_are_printed_on_one_line():
    assert printable("a\tb\n\x1b[31m\u2028é雪 $") == r"a\tb\n\x1b[31m\u2028é雪 $"
    assert printable("\udcff") == r"\udcff"


@pytest.mark.parametrize("name", ["~backup.jpg", "$NOT_SET_AT_ALL", "ab:/c.jpg"])
def test_a_file_may_be_called_like_that(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    assert find_pictures([name]) == [Path(name)]


def test_pictures_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jpg").touch()
    for source in ("~", "~/a.jpg", "~/*.jpg", "$HOME/a.jpg"):
        assert find_pictures([source]) == [tmp_path / "a.jpg"]


def test_a_folder_that_may_not_be_entered_is_left_to_whoever_opens_the_file(monkeypatch):
    """`Path.is_dir` raises PermissionError there."""
    real = os.stat

    def refusing(path, **options):
        if str(path).startswith("locked/"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    assert find_pictures(["locked/a.jpg"]) == [Path("locked/a.jpg")]
