"""The photographs arrive verified, whole or not at all, and nothing else does."""

import hashlib
import http.server
import os
import shutil
import stat
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jaxgear.data import photographs
from jaxgear.data.photographs import MANIFEST, get_gear, read_manifest
from jaxgear.errors import DataError

PICTURES = {f"{name}/{k}.jpeg": f"{name} {k}".encode() * 50 for name in "ab" for k in range(3)}
SUMS = {name: hashlib.sha256(data).hexdigest() for name, data in PICTURES.items()}


def zipped(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return path


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(tmp_path: Path, source: Path | None, expected: str, **options) -> None:
    """`get_gear` fails in one line that says why, and leaves nothing at or beside the target."""
    target = tmp_path / "out" / "gear"
    with pytest.raises(DataError, match=expected) as caught:
        get_gear(source, target, manifest=SUMS, **options)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and the folder that it serves."""
    monkeypatch.setenv("no_proxy", "*")
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/broken.zip":
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"PK only the beginning")
            else:
                with suppress(ConnectionError):  # the client hangs up when it has had enough
                    super().do_GET()

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", served
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("top", ["", "gear_images/", "x/"])
def test_from_a_zip(tmp_path: Path, top: str):
    source = zipped(tmp_path / "g.zip", PICTURES, top)
    line = get_gear(source, tmp_path / "data" / "gear", manifest=SUMS)
    assert line.endswith("6 of 6 pictures in place")
    assert content(tmp_path / "data" / "gear") == PICTURES
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["gear"]


@pytest.mark.parametrize("top", ["", "gear_images"])
def test_from_a_folder(tmp_path: Path, top: str):
    folder_of(tmp_path / "source" / top, PICTURES)
    get_gear(tmp_path / "source", tmp_path / "gear", manifest=SUMS)
    assert content(tmp_path / "gear") == PICTURES
    assert len(content(tmp_path / "source")) == 6


def test_other_files_are_counted_and_not_taken(tmp_path: Path):
    more = {"gear_images/" + name: data for name, data in PICTURES.items()}
    more |= {"__MACOSX/a/._0.jpeg": b"x", "gear_images/.DS_Store": b"x", "run.sh": b"rm"}
    line = get_gear(zipped(tmp_path / "g.zip", more), tmp_path / "gear", manifest=SUMS)
    assert "3 other files" in line
    assert content(tmp_path / "gear") == PICTURES


def test_download(tmp_path: Path, server: tuple[str, Path], capsys: pytest.CaptureFixture):
    url, served = server
    zipped(served / "g.zip", PICTURES, "gear_images/")
    get_gear(None, tmp_path / "gear", manifest=SUMS, url=f"{url}/g.zip")
    assert content(tmp_path / "gear") == PICTURES
    assert f"downloading {url}/g.zip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("none.zip", "cannot download .*[Nn]ot [Ff]ound.*--from.*--data drawn:600"),
        ("page.zip", "not a zip"),
        ("broken.zip", "connection broke after 21 of 1000000"),
    ],
)
def test_downloads_that_fail(tmp_path: Path, server: tuple[str, Path], path: str, expected: str):
    (server[1] / "page.zip").write_bytes(b"<html>moved</html>")
    refused(tmp_path, None, expected, url=f"{server[0]}/{path}")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    refused(tmp_path, None, "cannot download .*--from", url="http://127.0.0.1:9/g.zip")
    refused(tmp_path, None, "cannot download", url="not an address")


def test_a_download_without_end_is_stopped(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(photographs, "_MAX_DOWNLOAD", 2**20)
    (server[1] / "g.zip").write_bytes(bytes(2**20 + 1))
    refused(tmp_path, None, "larger than 1 MB", url=f"{server[0]}/g.zip")


def test_missing_and_changed_pictures(tmp_path: Path):
    fewer = dict(list(PICTURES.items())[:4])
    source = zipped(tmp_path / "fewer.zip", fewer)
    refused(tmp_path, source, r"2 missing, 0 changed \(b/1.jpeg, b/2.jpeg\); --allow-incomplete")
    line = get_gear(source, tmp_path / "gear", manifest=SUMS, allow_incomplete=True)
    assert "4 of 6 pictures" in line
    assert content(tmp_path / "gear") == fewer
    changed = zipped(tmp_path / "changed.zip", PICTURES | {"a/1.jpeg": b"other"})
    refused(tmp_path, changed, r"0 missing, 1 changed \(a/1.jpeg\)$")
    refused(tmp_path, changed, "1 changed", allow_incomplete=True)
    refused(tmp_path, zipped(tmp_path / "empty.zip", {}), "6 missing")


def test_sources_that_are_none(tmp_path: Path):
    refused(tmp_path, tmp_path / "nowhere.zip", "no such file or folder")
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path, tmp_path / "text.zip", "text.zip: not a zip")


@pytest.mark.parametrize(
    "name", ["../evil.jpeg", "/evil.jpeg", "a/../../evil.jpeg", "C:/evil.jpeg", "a\\..\\evil.jpeg"]
)
def test_paths_out_of_the_target_are_refused(tmp_path: Path, name: str):
    # zipfile itself tidies names when writing on some systems, so the name is put in afterwards
    placeholder = "x" * len(name)
    path = zipped(tmp_path / "g.zip", PICTURES | {placeholder: b"evil"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name.encode()))
    refused(tmp_path, path, "unsafe zip: path")
    assert not list(tmp_path.rglob("evil*"))


def test_symbolic_links_are_refused(tmp_path: Path):
    path = tmp_path / "g.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a/0.jpeg")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path, path, "is a symbolic link")
    folder = folder_of(tmp_path / "folder", PICTURES)
    (folder / "a" / "0.jpeg").unlink()
    (folder / "a" / "0.jpeg").symlink_to(tmp_path / "g.zip")
    refused(tmp_path, folder, "1 missing")


def test_entries_that_occur_twice_are_refused(tmp_path: Path):
    path = zipped(tmp_path / "g.zip", PICTURES)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/0.jpeg", b"second")
    refused(tmp_path, path, "occurs twice")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(photographs, "_MAX_TOTAL", 2**20)
    bomb = zipped(tmp_path / "bomb.zip", {"a/0.jpeg": bytes(2**21)})
    assert bomb.stat().st_size < 2**14
    refused(tmp_path, bomb, "unsafe zip: 1 entries, 2097152 bytes")
    monkeypatch.setattr(photographs, "_MAX_ENTRIES", 5)
    refused(tmp_path, zipped(tmp_path / "many.zip", PICTURES), "6 entries")


def test_a_bomb_that_lies_about_its_size_writes_no_more_than_declared(tmp_path: Path):
    """Declared 1000 bytes, 2 MB unpacked: the reader stops at what was declared."""
    path = zipped(tmp_path / "bomb.zip", {"a/0.jpeg": bytes(2**21)})
    data = path.read_bytes().replace(struct.pack("<I", 2**21), struct.pack("<I", 1000))
    path.write_bytes(data)
    refused(tmp_path, path, "5 missing, 1 changed", allow_incomplete=True)


def test_damaged_zip(tmp_path: Path):
    path = zipped(tmp_path / "g.zip", PICTURES)
    data = bytearray(path.read_bytes())
    data[data.find(b"a/0.jpeg") + 12] ^= 0xFF  # in the packed bytes of the first picture
    path.write_bytes(data)
    refused(tmp_path, path, "1 changed")
    path.write_bytes(data[: len(data) // 2])
    refused(tmp_path, path, "not a zip that can be read")


def test_a_target_that_exists(tmp_path: Path):
    source = zipped(tmp_path / "g.zip", PICTURES)
    target = tmp_path / "gear"
    target.mkdir()
    get_gear(source, target, manifest=SUMS)  # an empty folder is as good as none
    (target / ".DS_Store").write_bytes(b"x")
    assert "6 of 6 pictures already in place" in get_gear(source, target, manifest=SUMS)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"0 pictures missing, 0 changed, 1 extra\); move it away"):
        get_gear(source, target, manifest=SUMS)
    (target / "notes.txt").unlink()
    (target / "a/0.jpeg").write_bytes(b"edited")
    with pytest.raises(DataError, match="1 changed"):
        get_gear(source, target, manifest=SUMS, allow_incomplete=True)
    assert (target / "a/0.jpeg").read_bytes() == b"edited"
    (target / "a/0.jpeg").unlink()
    with pytest.raises(DataError, match="1 pictures missing"):
        get_gear(source, target, manifest=SUMS)
    assert "5 of 6" in get_gear(source, target, manifest=SUMS, allow_incomplete=True)


def test_a_target_that_is_a_file_or_cannot_be_written(tmp_path: Path):
    source = zipped(tmp_path / "g.zip", PICTURES)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError):
        get_gear(source, tmp_path / "file", manifest=SUMS)
    with pytest.raises(DataError, match="cannot be written"):
        get_gear(source, tmp_path / "file" / "gear", manifest=SUMS)


def test_a_target_that_is_a_link_or_a_pipe_stays_one(tmp_path: Path):
    source = zipped(tmp_path / "g.zip", PICTURES)
    (tmp_path / "disk").mkdir()
    for name, to in (("empty", "disk"), ("broken", "disk/new")):
        (tmp_path / name).symlink_to(to)
        get_gear(source, tmp_path / name, manifest=SUMS)
        assert (tmp_path / name).is_symlink()
        assert content(tmp_path / to) == PICTURES
        shutil.rmtree(tmp_path / "disk")
        (tmp_path / "disk").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(DataError, match="not a folder; choose another --to"):
            get_gear(source, target, manifest=SUMS)


def test_the_committed_manifest():
    sums = read_manifest(MANIFEST)
    assert len(sums) == 2122
    assert len({name.split("/")[0] for name in sums}) == 12
    assert all(len(value) == 64 for value in sums.values())
    assert not any(".." in name or name.startswith("/") for name in sums)


def test_names_with_spaces_in_a_manifest(tmp_path: Path):
    path = tmp_path / "sums"
    path.write_text(f"{'0' * 64}  a/b c.jpeg\n")
    assert read_manifest(path) == {"a/b c.jpeg": "0" * 64}
