"""Files, folders and patterns, in an order that does not depend on the file system."""

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import encoded, scene

from jaxgear.data.folder.walk import Refused
from jaxgear.data.images.encoded import ImageError
from jaxgear.data.sources import find_pictures, to_rgb
from jaxgear.errors import DataError
from jaxgear.text import printable


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


@pytest.mark.parametrize("folder", ["set [2024]", "a[b]c", "[x]/deep*"])
def test_patterns_below_folders_with_brackets(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for name in ("1.jpg", "in/2.jpg", "a.txt"):
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, name).touch()
    for root in (Path(), tmp_path):
        assert find_pictures([root / folder / "*.jpg"]) == [root / folder / "1.jpg"]
        assert find_pictures([root / folder / "**/*.jpg"]) == [
            root / folder / "1.jpg", root / folder / "in/2.jpg"
        ]  # fmt: skip
        assert find_pictures([root / folder / "[ab].txt"]) == [root / folder / "a.txt"]


@pytest.mark.parametrize("source", ["nothing/*.jpg", "empty", "."])
def test_nothing_found_is_an_error_by_name(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(DataError, match=rf"^{source.replace('*', '.')}: ") as error:
        find_pictures([source])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["b", Path("b"), "b/*.jpg", "a.jpg"])
def test_one_source_is_one_source(pictures, source, monkeypatch):
    """A string is one path, not a list of letters (`/` would be walked)."""
    assert find_pictures(source) == find_pictures([source])


def test_pictures_may_be_handed_over(tmp_path):
    """Alone, in a list, in an array of several, and among paths."""
    data, pixels = encoded(scene(1)), scene(1)
    written = io.BytesIO()
    written.write(data)  # not rewound
    (tmp_path / "a.png").write_bytes(data)
    with PIL.Image.open(tmp_path / "a.png") as opened, (tmp_path / "a.png").open("rb") as file:
        for source in (data, bytearray(data), written, file):
            assert [one.content for one in find_pictures(source)] == [data]
        for source in (opened, pixels):
            (one,) = find_pictures(source)
            np.testing.assert_array_equal(to_rgb(one.content, one.name), pixels)
        several = find_pictures([tmp_path / "a.png", data, opened, pixels])
    assert [getattr(one, "name", None) for one in several] == [
        "a.png", "<picture 2>", "<picture 3>", "<picture 4>"
    ]  # fmt: skip
    assert len(find_pictures(np.stack([pixels, pixels, pixels]))) == 3
    assert len(find_pictures(np.array([str(tmp_path / "a.png"), "b.png"]))) == 2
    assert find_pictures([]) == []


def test_pictures_of_pillow_are_upright_and_on_white():
    image = PIL.Image.fromarray(scene(1))
    image.putalpha(0)
    assert (to_rgb(image, "a") == 255).all()
    turned = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(scene(1)).save(turned, "PNG", exif=exif)
    with PIL.Image.open(turned) as opened:
        np.testing.assert_array_equal(to_rgb(opened, "a"), np.rot90(scene(1), -1))
    with PIL.Image.open(io.BytesIO(encoded(scene(1))[:200])) as opened:
        (one,) = find_pictures(opened)
        with pytest.raises(ImageError, match="a: damaged picture"):
            to_rgb(one.content, "a")


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (7, "int"),
        (None, "NoneType"),
        ([None], "NoneType"),
        ([1.5], "float"),
        (io.StringIO("text"), "str"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \[8, 8, 4\]"),
        (np.zeros((8, 8, 3), np.float32), r"float32 \[8, 8, 3\]"),
        ([np.zeros((0, 8, 3), np.uint8)], r"uint8 \[0, 8, 3\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_source_is_a_type_error_that_says_what_is(source, word):
    with pytest.raises(TypeError, match=rf"{word}: neither a path nor a picture; pictures are"):
        find_pictures(source)


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
