"""One set named in many ways: the same pictures, fingerprint, splits and first epoch."""

import csv
import functools
import http.server
import importlib
import io
import shutil
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pictures import write_set

from jaxgear.data.batches import Batches
from jaxgear.data.dataset import open_dataset
from jaxgear.data.labels import addresses, fetched_any, list_source
from jaxgear.data.recorded import describe
from jaxgear.data.sources import read_source
from jaxgear.errors import DataError, UsageError

COUNTS = {"boots": 12, "rope": 9, "tents": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("named") / "set", COUNTS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows_of(folder: Path) -> list[tuple[str, str]]:
    return [(p.relative_to(folder).as_posix(), p.parent.name) for p in folder.rglob("*.png")]


def write_csv(path: Path, header: list[str], rows: list, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def beside(folder: Path, tmp_path: Path) -> str:
    """The table outside the folder, with absolute paths."""
    rows = [(folder / path, label) for path, label in rows_of(folder)]
    return str(write_csv(tmp_path / "labels.csv", ["path", "label"], rows))


def inside(folder: Path, tmp_path: Path) -> str:
    """The folder with Hugging Face's table in it."""
    shutil.copytree(folder, tmp_path / "hf")
    write_csv(tmp_path / "hf/metadata.csv", ["file_name", "label"], rows_of(folder))
    return str(tmp_path / "hf")


def parquet(folder: Path, tmp_path: Path) -> str:
    import pyarrow
    import pyarrow.parquet

    paths, labels = zip(*rows_of(folder), strict=True)
    shutil.copytree(folder, tmp_path / "pq")
    table = pyarrow.table({"label": labels, "path": paths, "width": [1] * len(paths)})
    pyarrow.parquet.write_table(table, tmp_path / "pq/some.parquet")
    return str(tmp_path / "pq/some.parquet")


def semicolons(folder: Path, tmp_path: Path) -> str:
    """As a spreadsheet writes it in many countries."""
    rows = [(label, f"./{path}", "x") for path, label in rows_of(folder)]
    shutil.copytree(folder, tmp_path / "sc")
    return str(write_csv(tmp_path / "sc/t.csv", ["Class", " PATH ", "note"], rows, ";"))


def zipped(folder: Path, tmp_path: Path) -> str:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("set/", "")
        archive.writestr("__MACOSX/._x", "")
        for path in folder.rglob("*.png"):
            archive.write(path, Path("set") / path.relative_to(folder))
    return str(tmp_path / "set.zip")


def zipped_table(folder: Path, tmp_path: Path) -> str:
    text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows_of(folder))
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        archive.writestr("labels.csv", text)
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    return str(tmp_path / "table.zip")


def tarred(folder: Path, tmp_path: Path) -> str:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")
    return str(tmp_path / "set.tar.gz")


def in_memory(folder: Path, tmp_path: Path) -> str:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), f"/{tmp_path.name}/set", recursive=True)
    return f"memory://{tmp_path.name}/set"


def zip_in_memory(folder: Path, tmp_path: Path) -> str:
    import fsspec

    local = zipped(folder, tmp_path)
    fsspec.filesystem("memory").put(local, f"/{tmp_path.name}/set.zip")
    return f"memory://{tmp_path.name}/set.zip"


def table_in_memory(folder: Path, tmp_path: Path) -> str:
    """A table behind an address, with pictures relative to it."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), f"/{tmp_path.name}/t", recursive=True)
    text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows_of(folder))
    memory.pipe(f"/{tmp_path.name}/t/labels.csv", text.encode())
    return f"memory://{tmp_path.name}/t/labels.csv"


def addresses_in_a_table(folder: Path, tmp_path: Path) -> str:
    start = in_memory(folder, tmp_path)
    rows = [(f"{start}/{path}", label) for path, label in rows_of(folder)]
    return str(write_csv(tmp_path / "addresses.csv", ["address", "label"], rows))


NAMED = (
    *(beside, inside, parquet, semicolons, zipped, zipped_table, tarred),
    *(in_memory, zip_in_memory, table_in_memory, addresses_in_a_table),
)


def opened(source: str) -> tuple:
    """What `splits.json` says of a set, and the batches of its first epoch."""
    dataset = open_dataset(source, size=16, seed=3, say=lambda line: None)
    train = dataset.split("train")
    batches = Batches(train.images, train.labels, 4, 3, train.names).shuffled(1)
    return describe(dataset), [
        (train.images[np.asarray(b.index)], np.asarray(b.label)) for b in batches
    ]


@pytest.mark.parametrize("named", NAMED, ids=lambda named: named.__name__)
def test_however_a_set_is_named_it_is_the_same(folder, tmp_path, cache, named):
    described, epoch = opened(str(folder))
    same, same_epoch = opened(named(folder, tmp_path))
    assert same == described
    assert len(epoch) > 3
    for batch, other in zip(epoch, same_epoch, strict=True):
        for array, theirs in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, theirs)


def test_a_second_start_copies_only_what_changed(folder, tmp_path, cache):
    import fsspec

    memory = fsspec.filesystem("memory")
    source = in_memory(folder, tmp_path)
    before = read_source(source, 16)
    copies = {path: path.stat().st_ino for path in (cache / "addresses").rglob("*.png")}
    assert len(copies) == sum(COUNTS.values())
    memory.rm(f"/{tmp_path.name}/set/boots/00000.png")
    memory.put(str(folder / "boots/00001.png"), f"/{tmp_path.name}/set/boots/00002.png")
    after = read_source(source, 16)
    assert len(after.records) == len(before.records) - 1
    now = {path: path.stat().st_ino for path in (cache / "addresses").rglob("*.png")}
    assert sum(copies[path] == inode for path, inode in now.items()) == len(copies) - 2


@pytest.fixture
def server(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder.parent)
    handler.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_on_this_machine(folder, tmp_path, cache, server, monkeypatch):
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp: jaxgear[http]")
    expected = read_source(str(folder), 16)
    assert read_source(f"{server}/set", 16).fingerprint == expected.fingerprint
    zipped(folder, tmp_path)
    shutil.move(tmp_path / "set.zip", folder.parent / "served.zip")
    assert read_source(f"{server}/served.zip", 16).fingerprint == expected.fingerprint
    with pytest.raises(DataError, match=f"^{server}/nothing"):
        read_source(f"{server}/nothing", 16)


def test_splits_of_a_table_are_kept(folder, tmp_path, cache):
    splits = ("Training", "dev", "TEST", "")
    rows = [(path, label, splits[i % 4]) for i, (path, label) in enumerate(rows_of(folder))]
    shutil.copytree(folder, tmp_path / "set")
    write_csv(tmp_path / "set/labels.csv", ["path", "label", "split"], rows)
    read = read_source(str(tmp_path / "set"), 16)
    given = {path: split for path, _, split in rows}
    words = {"Training": "train", "dev": "val", "TEST": "test", "": None}
    assert {r.path: r.split for r in read.records} == {p: words[s] for p, s in given.items()}


def test_a_table_in_each_split_s_folder(folder, tmp_path, cache):
    for split in ("train", "test"):
        (tmp_path / "hf" / split).mkdir(parents=True)
        rows = rows_of(folder)[:: 1 if split == "train" else 3]
        flat = [(path.replace("/", "-"), label) for path, label in rows]
        for (path, _), (name, _) in zip(rows, flat, strict=True):
            shutil.copy(folder / path, tmp_path / "hf" / split / name)
        write_csv(tmp_path / "hf" / split / "metadata.csv", ["file_name", "label"], flat)
    read = read_source(str(tmp_path / "hf"), 16)
    assert {r.split for r in read.records} == {"train", "test"}
    assert read.classes == tuple(sorted(COUNTS))
    assert read.tables == ("test/metadata.csv", "train/metadata.csv")


def test_two_tables_that_disagree_are_both_named(folder, tmp_path, cache):
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        rows = [("../a.png", "boots")]
        write_csv(tmp_path / "set" / split / "metadata.csv", ["file_name", "label"], rows)
    test, train = (tmp_path / f"set/{split}/metadata.csv, line 2" for split in ("test", "train"))
    with pytest.raises(DataError) as error:
        read_source(str(tmp_path / "set"), 16)
    assert str(error.value) == (
        f"{train}: ../a.png is boots (train) here and boots (test) in {test}"
    )


def test_a_table_of_captions_names_nothing(folder, tmp_path, cache):
    shutil.copytree(folder, tmp_path / "set")
    write_csv(tmp_path / "set/metadata.csv", ["file_name", "text"], [("a.png", "a boot")])
    read = read_source(str(tmp_path / "set"), 16)
    assert read.fingerprint == read_source(str(folder), 16).fingerprint
    assert read.ignored == ("metadata.csv",)
    assert read.tables == ()


def test_pictures_that_a_table_decides_on_are_said_to_be_so(folder, tmp_path, cache):
    lines = {}
    for source in (str(folder), inside(folder, tmp_path), str(tmp_path / "hf/metadata.csv")):
        lines[source] = []
        open_dataset(source, size=16, seed=0, say=lines[source].append)
    plain, decided, named = lines.values()
    assert decided == [
        "pictures and labels are those of metadata.csv, not of class folders",
        *plain,
    ]
    assert named == plain


def test_pictures_that_are_missing_or_have_no_label_are_refused(folder, tmp_path, cache):
    rows = [*rows_of(folder), ("boots/none.png", "boots"), ("rope/00099.png", "")]
    shutil.copytree(folder, tmp_path / "set")
    table = write_csv(tmp_path / "set/t.csv", ["path", "label"], rows)
    reasons = {r.path: r.reason for r in read_source(str(table), 16).refused}
    assert reasons == {"boots/none.png": "no such file", "rope/00099.png": "no label"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no column path"),
        ("path,colour\na.png,red\n", "has no column label, only path, colour"),
        ("path,label\n", "has no rows"),
        ("path,label\n,boots\n", "line 2: names no picture"),
        ("path,label\na.png,../boots\n", "line 2: label '../boots' holds a slash"),
        ("path,label,split\na.png,boots,later\n", "line 2: split 'later'"),
        ("path,label\na.png,boots\n./a.png,rope\n", "line 3: ./a.png is rope here and boots in"),
        ("path,label\na.png,Boots\nb.png,boots\n", "differ only in case"),
        ("path,label\na.png,boots\ns3://b/a.png,rope\n", "one kind of place"),
        ("path,label\n" + "x" * 200000 + ",a\n", "field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, cache, text, reason):
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(DataError) as error:
        read_source(str(table), 16)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "zip", "tar", "tar.gz"])
def test_bytes_that_are_something_else_are_one_line(tmp_path, cache, suffix):
    for content in (b"", b"\xff\xd8\xff\xe0 no table", b"PK\x03\x04 half a zip"):
        file = tmp_path / f"set.{suffix}"
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"set\.{suffix}") as error:
            read_source(str(file), 16)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png", "C:/out.png"])
def test_nothing_is_unpacked_outside(tmp_path, cache, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, b"x")
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    for file in ("bad.zip", "bad.tar"):
        with pytest.raises(DataError, match="leads out of the archive"):
            list_source(str(tmp_path / file))
    assert not list(tmp_path.rglob("out.png"))
    assert not any((cache / "archives").iterdir())


def test_links_and_devices_of_an_archive_are_left_packed(folder, tmp_path, cache):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, ".")
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.FIFOTYPE, "pipe")):
            member = tarfile.TarInfo(f"boots/{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    root, listing = list_source(str(tmp_path / "set.tar"))
    assert len(listing.candidates) == sum(COUNTS.values())
    assert not any(path.is_symlink() for path in root.rglob("*"))


def test_an_archive_behind_a_query_is_known_by_its_name(folder, tmp_path, cache):
    import fsspec

    local = zipped(folder, tmp_path)
    fsspec.filesystem("memory").put_file(local, f"/{tmp_path.name}/set.zip?download=1&to=a/b")
    found = read_source(f"memory://{tmp_path.name}/set.zip?download=1&to=a/b", 16)
    assert len(found.records) == sum(COUNTS.values())


def test_addresses_that_differ_in_their_query_have_copies_of_their_own(tmp_path, cache):
    import fsspec

    memory, places = fsspec.filesystem("memory"), []
    for number in (1, 2):
        address = f"memory://{tmp_path.name}/download?id={number}"
        memory.pipe_file(f"/{tmp_path.name}/download?id={number}", bytes([number]))
        places.append(fetched_any(address))
    assert [place.read_bytes() for place in places] == [b"\1", b"\2"]


def test_a_copy_stays_whose_name_an_object_store_spells_oddly(tmp_path, cache):
    """Two slashes are one on the disk."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/{tmp_path.name}/a", b"1")
    files = {"x//a": (f"/{tmp_path.name}/a", memory.info(f"/{tmp_path.name}/a"))}
    for _ in range(2):
        assert (addresses._copied("memory://x", memory, files) / "x/a").read_bytes() == b"1"


def test_what_a_killed_copy_left_is_no_part_of_the_set(folder, tmp_path, cache, monkeypatch):
    """What is gone since is not trained on, and what is there is not copied again."""
    from fsspec.implementations.memory import MemoryFileSystem

    source, calls, real = in_memory(folder, tmp_path), [], MemoryFileSystem.get_file

    def get_file(self, path, target, **options):
        calls.append(path)
        if path.endswith("00003.png"):
            raise OSError("the network is gone")
        return real(self, path, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", get_file)
        with pytest.raises(DataError, match="the network is gone"):
            read_source(source, 16)
        copied = len(list((cache / "addresses").rglob("*.png")))
        assert 0 < copied < sum(COUNTS.values())
        for state in (cache / "addresses").glob("*.json"):
            state.unlink()  # as if the process had been killed
        MemoryFileSystem().rm(f"/{tmp_path.name}/set/boots/00000.png")
        MemoryFileSystem().rm(next(path for path in calls if path.endswith("00003.png")))
        assert len(read_source(source, 16).records) == sum(COUNTS.values()) - 2
        del calls[:]
        MemoryFileSystem().touch(f"/{tmp_path.name}/set/later.txt")
        read_source(source, 16)
        assert [path.rpartition("/")[2] for path in calls] == ["later.txt"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_error_about_a_folder_names_it_as_it_was_given(tmp_path, monkeypatch, slash):
    write_set(tmp_path / "a", {"boots": 3})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^a{slash}?: 1 class folders"):
        open_dataset(f"a{slash}", size=16, seed=0, say=lambda line: None)


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(folder, tmp_path, cache, monkeypatch):
    source = zipped(folder, tmp_path)
    usage = shutil._ntuple_diskusage(10, 10, 2**29 + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="too little disk"):
        list_source(source)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("memory://nobody/here", DataError, "no such folder"),
        ("memory://nobody/here.zip", DataError, "not there"),
        ("memory://nobody/here.csv", DataError, "not there"),
        ("nosuch://a/b", UsageError, "nosuch"),
        ("http://127.0.0.1:9/x", DataError, "127.0.0.1:9/x"),
    ],
)
def test_addresses_that_lead_nowhere_are_one_line(cache, source, error, words):
    if source.startswith("http"):
        pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp: jaxgear[http]")
    with pytest.raises(error, match=f"^{source}") as raised:
        read_source(source, 16)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("package", "extra", "source"),
    [("s3fs", "s3", "s3://b/set"), ("gcsfs", "gs", "gs://b/set"),
     ("huggingface_hub", "hf", "hf://datasets/a/b"), ("aiohttp", "http", "http://a/b.zip")],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(cache, monkeypatch, package, extra, source):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    registry = importlib.import_module("fsspec.registry")  # `fsspec.registry` is a dict
    monkeypatch.delitem(registry._registry, "http", raising=False)
    with pytest.raises(UsageError, match=rf"pip install 'jaxgear\[{extra}\]'"):
        read_source(source, 16)


def test_errors_about_a_copy_name_what_the_user_named(tmp_path, cache):
    import fsspec

    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/one/boots/a.png", b"no picture")
    with pytest.raises(DataError) as error:
        read_source(f"memory://{tmp_path.name}/one", 16)
    assert str(error.value).startswith(f"memory://{tmp_path.name}/one: 1 class folders")
    assert str(cache) not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "tar", "csv", "parquet"])
def test_damaged_files_are_refused_or_read_and_nothing_else(folder, tmp_path, cache, kind):
    """200 mutated archives and tables: a listing or a DataError, and no file outside the cache."""
    make = {"zip": zipped_table, "tar": tarred, "csv": beside, "parquet": parquet}[kind]
    made = Path(make(folder, tmp_path))
    whole = made.read_bytes()
    cache.mkdir()
    outside = lambda: sorted(p for p in tmp_path.rglob("*") if cache not in p.parents)  # noqa: E731
    before = outside()
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 8)):
            data[place] = rng.integers(256)
        data = data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data
        made.write_bytes(data)
        try:
            list_source(str(made))
        except DataError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)
    assert outside() == before
