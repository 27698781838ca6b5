"""A prepared set equals its folder and grows with it; a kill loses and repeats no work."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import empty_cache, encoded, scene, write_set
from tensorflow_datasets.proto import tf_example_pb2

from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder import Record
from jaxgear.data.folder.read import pixels, read_folder
from jaxgear.data.images import decode
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.prepare import prepared, versions, writing
from jaxgear.data.prepare.decoding.workshop import staged
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.tfds.read import read_tfds
from jaxgear.data.tfds.shards import Shard, write_shard
from jaxgear.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]


def quietly(root: Path, out: Path, **options) -> list[str]:
    """Prepares in this process; returns the printed lines."""
    said: list[str] = []
    prepare(root, out, **{"workers": 1, "say": said.append, "size": 24} | options)
    return said


def shards(out: Path, version: str) -> dict[int, bytes]:
    """Shards and tables by inode."""
    files = (out / "gear" / version).glob("*.array_record-*")
    return {path.stat().st_ino: path.read_bytes() for path in files}


def same_as_folder(out: Path, root: Path, seed: int = 0) -> None:
    """The set in `out` gives the same data as the folder, to us and to plain TFDS."""
    ours = open_dataset(f"tfds:gear@{out}", size=24, seed=99, say=lambda line: None)
    folder = open_dataset(str(root), size=24, seed=seed, say=lambda line: None)
    assert ours.folder.fingerprint == folder.folder.fingerprint
    assert (ours.classes, ours.splits, ours.groups) == (
        folder.classes,
        folder.splits,
        folder.groups,
    )
    plain = [
        (r.path, r.sha256, r.label, r.height, r.width, r.descriptor) for r in folder.folder.records
    ]
    assert plain == [
        (r.path, r.sha256, r.label, r.height, r.width, r.descriptor) for r in ours.folder.records
    ]
    expected = pixels(folder.folder, 24)
    with empty_cache():
        assert np.array_equal(pixels(ours.folder, 24), expected)
    builder = tfds.builder_from_directory(ours.folder.root)
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == Counter(folder.splits)
    by_path = {r.path: r for r in folder.folder.records}
    for split in counts:
        for row in builder.as_data_source(split):
            record = by_path.pop(row["path"].decode())
            assert folder.classes[row["label"]] == record.path.split("/")[0]
            assert row["sha256"].decode() == record.sha256
            assert np.array_equal(row["image"], letterbox(folder.folder.load(record), 24))
    assert not by_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were decoded in this process."""
    names: list[str] = []
    decode_one = decode._decode

    def counting(data, name, *options):
        names.append(name)
        return decode_one(data, name, *options)

    monkeypatch.setattr(decode, "_decode", counting)
    return names


def test_a_run_on_the_set_sees_what_one_on_the_folder_sees(tmp_path: Path):
    root = write_set(tmp_path / "data", {"axes": 15, "boots": 15})
    for number in range(9):  # near-duplicates of others: some are left out
        (root / "boots" / f"near-duplicate{number}.jpg").write_bytes(
            encoded(scene(number + 9), "JPEG")
        )
    for size in (24, None):
        quietly(root, tmp_path / f"{size}", size=size, seed=3)
        ours = open_dataset(f"tfds:gear@{tmp_path / f'{size}'}", size=24, seed=9, say=print)
        folder = open_dataset(str(root), size=24, seed=3, say=print)
        assert ours.splits == folder.splits
        assert "left_out" in ours.splits
        for split in ("train", "val"):
            assert np.array_equal(ours.split(split).images, folder.split(split).images)
    same_as_folder(tmp_path / "24", root, seed=3)


def test_pictures_are_not_enlarged_from_a_smaller_set(tmp_path: Path):
    quietly(write_set(tmp_path / "data", {"a": 5, "b": 5}), tmp_path / "out", size=24)
    with pytest.raises(DataError, match="holds pictures of 24 pixels; take --image-size 24 or"):
        read_tfds(f"gear@{tmp_path / 'out'}", size=25)
    assert len(read_tfds(f"gear@{tmp_path / 'out'}", size=20).records) == 10


def test_new_pictures_go_to_new_shards(tmp_path: Path, decoded: list[str]):
    root, out = write_set(tmp_path / "data", {"axes": 15, "boots": 15}), tmp_path / "out"
    quietly(root, out)
    assert len(decoded) == 30
    before = shards(out, "1.0.0")
    write_set(root, {"axes": 12}, start=500)
    assert quietly(root, out)[-1].endswith("pictures 12 added")
    assert len(decoded) == 42
    after = shards(out, "2.0.0")
    assert before.items() < after.items()  # the same files
    assert shards(out, "1.0.0") == before
    same_as_folder(out, root)
    decoded.clear()
    assert quietly(root, out)[-1].endswith("2.0.0: nothing has changed")
    assert decoded == []
    assert {path.name for path in (out / "gear").iterdir()} == {"1.0.0", "2.0.0"}


def test_only_shards_with_a_change_are_written_anew(tmp_path: Path, decoded, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 6000)  # three pictures or so
    root, out = write_set(tmp_path / "data", {"axes": 20, "boots": 20}), tmp_path / "out"
    quietly(root, out)
    first = read_tfds(f"gear@{out}", size=24)
    assert len(first.shards) > 8
    gone, edited, renamed = (first.shards[row].records[0] for row in (0, 2, 4))
    (root / gone.path).unlink()
    (root / edited.path).write_bytes(encoded(scene(999)))
    (root / renamed.path).rename(root / renamed.path.replace(".png", "x.png"))
    decoded.clear()
    assert "pictures 1 added, 2 gone, 1 edited" in quietly(root, out)[-1]
    assert decoded == [edited.path]
    inodes = {shard.path.stat().st_ino for shard in read_tfds(f"gear@{out}", size=24).shards}
    kept = {shard.path for shard in first.shards if shard.path.stat().st_ino in inodes}
    assert kept == {shard.path for row, shard in enumerate(first.shards) if row not in (0, 2, 4)}
    same_as_folder(out, root)


def test_processes_write_what_this_one_does(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 6000)
    root = write_set(tmp_path / "data", {"axes": 10, "boots": 10})
    quietly(root, tmp_path / "one")
    counts = []
    monkeypatch.setattr(writing, "_WORTH_PROCESS", 1000)
    real = writing.processes
    monkeypatch.setattr(writing, "processes", lambda *own: counts.append(own[0]) or real(*own))
    quietly(root, tmp_path / "two", workers=2)
    assert counts == [2]
    one, two = (sorted(shards(tmp_path / name, "1.0.0").values()) for name in ("one", "two"))
    assert len(one) > 8
    assert one == two
    same_as_folder(tmp_path / "two", root)


@settings(deadline=None)
@given(
    label=st.integers(0, 2**40),
    texts=st.tuples(*[st.text(max_size=200)] * 3),
    size=st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 3_000_000]),
)
def test_a_record_is_written_as_protobuf_does(label: int, texts: tuple[str, ...], size: int):
    path, sha256, group = texts
    record, data = Record(path, sha256, label, None, 1, 1, b"", group), bytes(size)
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["label"].int64_list.value.append(label)
    feature["image"].bytes_list.value.append(data)
    for name, text in zip(("path", "sha256", "group"), texts, strict=True):
        feature[name].bytes_list.value.append(text.encode())
    assert writing.serialize(record, data) == example.SerializeToString(deterministic=True)


def test_a_new_class_before_the_others(tmp_path: Path, decoded: list[str]):
    """Labels of classes change, but nothing is decoded."""
    root, out = write_set(tmp_path / "data", {"boots": 9, "tents": 9}), tmp_path / "out"
    quietly(root, out)
    write_set(root, {"axes": 9}, start=50)
    decoded.clear()
    quietly(root, out)
    assert len(decoded) == 9
    same_as_folder(out, root)


def test_killed_and_started_again(tmp_path: Path, decoded: list[str]):
    """SIGKILL while two processes decode: both end, and what they decoded is not decoded again."""
    root, out = tmp_path / "data", tmp_path / "out"
    big = scene(1, 600, 800)
    for number in range(120):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.roll(big, 5 * number, axis=1) ^ number, compress_level=1))
    command = [sys.executable, "-m", "jaxgear", "prepare", root, out, "--workers", "2"]
    running = subprocess.Popen([*command, "--size", "24"], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(list(entries(out))) < 20:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.kill()
    running.wait()
    assert len(children) >= 2
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not list((out / "gear").glob("[0-9]*"))
    with pytest.raises(DataError, match="no prepared TFDS set there"):
        read_tfds(f"gear@{out}")
    left = list(entries(out))
    assert 20 <= len({one.sha256 for one in left}) == len(left) < 120
    assert f"continuing an earlier run: {len(left)} pictures are already decoded" in quietly(
        root, out
    )
    assert len(decoded) == 120 - len(left)
    quietly(root, tmp_path / "whole")
    sums = [place / "gear" / "1.0.0" / "SHA256SUMS" for place in (out, tmp_path / "whole")]
    assert sums[0].read_text() == sums[1].read_text()


def entries(out: Path):
    return (one for place in out.glob("gear/.staging-*") for one in staged(place))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_entries_that_a_kill_cut_short_or_a_disk_damaged(tmp_path: Path, decoded: list[str]):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    stop_while_writing(root, out)
    (path,) = out.glob("gear/.staging-*/*")
    whole = path.read_bytes()
    places = [one.offset for one in entries(out)]
    for cut, left in ((len(whole) - 1, 19), (places[10], 10), (3, 0)):
        path.write_bytes(whole[:cut])
        assert len(list(entries(out))) == left
    path.write_bytes(whole[: places[5]] + b"!" + whole[places[5] + 1 :])
    assert len(list(entries(out))) == 5
    decoded.clear()
    quietly(root, out)
    assert len(decoded) == 15
    same_as_folder(out, root)


def stop_while_writing(root: Path, out: Path) -> None:
    # Shells start what runs in the background with SIGINT ignored, and so does Python.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(versions, "write_info", lambda *_: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                quietly(root, out)
    finally:
        signal.signal(signal.SIGINT, before)


def test_stopped_while_it_writes(tmp_path: Path, decoded: list[str]):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    stop_while_writing(root, out)
    with pytest.raises(DataError, match="no prepared TFDS set there"):
        read_tfds(f"gear@{out}")
    decoded.clear()
    quietly(root, out)
    assert decoded == []
    same_as_folder(out, root)


def test_an_image_whose_entry_is_lost_is_never_left_out(tmp_path: Path, monkeypatch):
    """Of a result only the hash came back: nothing is written without that image."""
    root = write_set(tmp_path / "data", {"axes": 10, "boots": 10})
    stage = prepared.stage

    def losing(*given, **options):
        for number, result in enumerate(stage(*given, **options)):
            yield result.sha256 if number == 3 else result

    with monkeypatch.context() as patch:
        patch.setattr(prepared, "stage", losing)
        with pytest.raises(DataError, match=r"^axes/00003.png: what was decoded of it is lost; "):
            quietly(root, tmp_path / "out")
    assert not list((tmp_path / "out").glob("gear/[0-9]*"))
    quietly(root, tmp_path / "out")
    same_as_folder(tmp_path / "out", root)


def test_pictures_of_another_decoder_are_decoded_anew(tmp_path: Path, decoded, monkeypatch):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    quietly(root, out)
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    quietly(root, out)
    assert len(decoded) == 40
    assert not shards(out, "1.0.0").keys() & shards(out, "2.0.0").keys()
    same_as_folder(out, root)


def test_bad_pictures(tmp_path: Path):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    (root / "a" / "bad.jpg").write_text("no")
    with pytest.raises(DataError, match=r"1 files cannot be used.*\n  a/bad.jpg: text, not"):
        quietly(root, out)
    assert not list(out.glob("gear/[0-9]*"))
    said = quietly(root, out, on_bad="skip")
    assert "1 unusable pictures left out: a/bad.jpg" in said
    (root / "a" / "bad.jpg").unlink()
    same_as_folder(out, root)


def test_what_cannot_be_added_to(tmp_path: Path):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    quietly(root, out, seed=3)
    with pytest.raises(UsageError, match="gear: was prepared with --seed 3; repeat that, or"):
        quietly(root, out)
    with pytest.raises(UsageError, match="gear: was prepared with --size 24; repeat that"):
        quietly(root, out, seed=3, size=None)
    quietly(root, tmp_path / "whole", size=None)
    with pytest.raises(UsageError, match="gear: was prepared with no --size; repeat that"):
        quietly(root, tmp_path / "whole")
    with (out / "gear" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"in use by process .* wait for it"):
            quietly(root, out, seed=3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file: cannot be written"):
        quietly(root, tmp_path / "file")


def flat(root: Path) -> None:
    write_set(root, {".": 3})


def of_one_class(root: Path) -> None:
    write_set(root, {"a": 3})


def of_empty_classes(root: Path) -> None:
    write_set(root, {"a": 0, "b": 0})


def of_hidden_files(root: Path) -> None:
    write_set(root, {".a": 3, "b/.c": 1})


@pytest.mark.parametrize(
    "make", [Path.mkdir, flat, of_one_class, of_empty_classes, of_hidden_files]
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_without_classes_is_refused_and_nothing_is_written(tmp_path, make, workers):
    make(tmp_path / "data")
    with pytest.raises(DataError, match=r"class folders with pictures \(.*\), at least 2 needed"):
        quietly(tmp_path / "data", tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists()


def test_classes_of_folders_alone_are_refused_by_name(tmp_path):
    for name in ("a/x.jpg", "b/y.png"):
        (tmp_path / "data" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"a/x.jpg: a folder, not a picture"):
        quietly(tmp_path / "data", tmp_path / "out", workers=2)


def test_nothing_is_prepared_inside_the_folder(tmp_path):
    root = write_set(tmp_path / "data", {"a": 5, "b": 5})
    for out in (root, root / "a" / "out"):
        with pytest.raises(UsageError, match="is inside the data folder"):
            quietly(root, out)
    assert len(list(root.rglob("*"))) == 12


def test_without_flock_a_set_is_written(tmp_path, monkeypatch):
    """Windows has no fcntl."""
    monkeypatch.setattr("jaxgear.files.fcntl", None)
    quietly(write_set(tmp_path / "data", {"a": 5, "b": 5}), tmp_path / "out")
    assert len(read_tfds(f"gear@{tmp_path / 'out'}", size=24).records) == 10


def test_a_full_disk_is_said():
    rows = (bytes(100_000) for _ in range(300))
    with pytest.raises(DataError, match=r"/dev/full: cannot be written: .*No space left"):
        write_shard(Shard(Path("/dev/full"), "train", (), (), ("", "")), rows)


def test_without_links_shards_are_copied(tmp_path: Path, monkeypatch):
    root, out = write_set(tmp_path / "data", {"a": 10, "b": 10}), tmp_path / "out"
    quietly(root, out)

    def refuse(self, target):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_set(root, {"a": 5}, start=100)
    quietly(root, out)
    shutil.rmtree(out / "gear" / "1.0.0")
    same_as_folder(out, root)


def test_nothing_is_written_into_the_folder(tmp_path: Path):
    root = write_set(tmp_path / "data", {"a": 10, "b": 10})
    before = sorted(root.rglob("*"))
    quietly(root, tmp_path / "out")
    assert sorted(root.rglob("*")) == before
    assert len(read_folder(root, size=16).records) == 20


def test_processes_that_decode_import_little():
    code = (
        "import sys, jaxgear.data.prepare.decoding.staging; "
        "sys.exit(sorted({'jax', 'tensorflow_datasets', 'array_record'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
