"""A prepared set whose columns are damaged, or of older code, is read right or named."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from older_sets import as_before
from pictures import write_set

from jaxgear.data.folder.read import read_folder
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.splits.clean import require_clean
from jaxgear.data.splits.groups import (
    near_duplicate_pairs,
)
from jaxgear.data.tfds import columns as tfds_columns
from jaxgear.data.tfds.read import TfdsFolder, read_tfds
from jaxgear.data.tfds.tables import sums_of, write_index
from jaxgear.errors import DataError


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    root = write_set(tmp_path / "data", {"a": 9, "b": 9})
    prepare(root, tmp_path / "out", size=16, workers=1, say=lambda line: None)
    return tmp_path / "out"


@pytest.mark.parametrize("position", [0.2, 0.4, 0.6, 0.999])
def test_each_host_checks_a_part_of_the_columns(prepared: Path, position: float, monkeypatch):
    """Together they check all, and one host alone does."""
    folder = prepared / "gear" / "1.0.0"
    whole = read_tfds(f"gear@{prepared}", size=16)
    monkeypatch.setattr(tfds_columns, "BLOCK", 100)
    monkeypatch.setattr(tfds_columns, "_SMALL", 10)
    sums = {name: digest for name, digest in sums_of(folder).items() if name != "index.npz"}
    write_index(folder, whole.classes, whole.fingerprint, near_duplicate_pairs)
    sums["index.npz"] = hashlib.sha256((folder / "index.npz").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text("".join(f"{v}  {k}\n" for k, v in sums.items()))
    shares = [(host, 4) for host in range(4)]
    for share in ((0, 1), *shares):
        assert read_tfds(f"gear@{prepared}", size=16, share=share).records == whole.records
    path = folder / "columns" / "stored.npy"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(data)
    blocks = -(-len(data) // 100)
    (host,) = (
        host
        for host in range(4)
        if blocks * host // 4 <= int(position * len(data)) // 100 < blocks * (host + 1) // 4
    )
    for share in ((0, 1), (host, 4)):
        with pytest.raises(
            DataError, match=r"stored\.npy: missing or damaged \(does not match index"
        ):
            read_tfds(f"gear@{prepared}", size=16, share=share)
    for share in shares:
        if share != (host, 4):
            read_tfds(f"gear@{prepared}", size=16, share=share)


def test_a_set_without_facts_opens_as_before(prepared: Path):
    """Its index has the fingerprint alone."""
    folder = prepared / "gear" / "1.0.0"
    whole = read_tfds(f"gear@{prepared}", size=16)
    (folder / "columns" / "by_split.npy").unlink()
    with np.load(folder / "index.npz") as index:
        kept = {name: index[name] for name in ("classes", "fingerprint")}
    np.savez(folder / "index.npz", **kept)
    sums = sums_of(folder)
    del sums["columns/by_split.npy"]
    sums["index.npz"] = hashlib.sha256((folder / "index.npz").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text("".join(f"{v}  {k}\n" for k, v in sums.items()))
    older = read_tfds(f"gear@{prepared}", size=16)
    assert older.records == whole.records
    assert older.fingerprint == whole.fingerprint
    assert whole.records.facts
    assert older.records.facts is None


def read_all(out: Path) -> TfdsFolder:
    folder = read_tfds(f"gear@{out}", size=16)
    assert all(record.descriptor for record in folder.records)
    return folder


NAME = "gear-train.array_record-00000-of-00001"


FILES = ("index.npz", f"{NAME}.npz", f"{NAME}.descriptors", "columns/text.npy", "columns/order.npy")


@pytest.mark.parametrize("name", [*FILES, "columns/stored.npy", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["missing", "short", "noise", "unknown"])
def test_a_damaged_file_is_named(prepared: Path, name: str, damage: str):
    read_all(prepared)
    path = prepared / "gear" / "1.0.0" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "noise":
        path.write_bytes(data[:50] + bytes(99) + data[149:])
    elif damage == "unknown":  # its sum is not there
        path.write_bytes(data)
        sums = prepared / "gear" / "1.0.0" / "SHA256SUMS"
        sums.write_text(sums.read_text().replace(f"  {name}\n", "  another\n"))
        if name in ("index.npz", "SHA256SUMS"):
            read_all(prepared)  # as a set of older code
            return
    with pytest.raises(DataError, match=r"(missing or damaged|changed) ?\(.*prepare it") as caught:
        read_all(prepared)
    assert "\n" not in str(caught.value)
    assert f"remove {prepared / 'gear'} and" in str(caught.value)
    if name != "SHA256SUMS":
        assert name in str(caught.value)


@pytest.mark.parametrize("older", [False, True])
def test_tables_of_another_version_are_refused(prepared: Path, older: bool):
    """Whose sums are right."""
    folder = prepared / "gear" / "1.0.0"
    if older:
        as_before(folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["shardLengths"] = [str(int(rows) + 1) for rows in split["shardLengths"]]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="its tables do not match its shards; remove it and"):
        read_tfds(f"gear@{prepared}", size=16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": lambda rows: rows["label"] + 2}, "a label is not a class"),
        ({"label": lambda rows: rows["label"][1:]}, "its columns do not match"),
        ({"look": lambda rows: rows["look"][0]}, "its columns do not match"),
        ({"path": lambda rows: rows["path"] | 128}, "invalid start byte|continuation byte"),
        ({"sha256": lambda rows: rows["sha256"][:, 1:]}, "broadcast"),
        ({"path": lambda rows: rows["path"][:-9]}, "its shards"),
    ],
)
def test_tables_of_older_code_that_do_not_match(prepared: Path, change, reason: str):
    as_before(prepared / "gear" / "1.0.0", **change)
    with pytest.raises(DataError, match=f"(damaged|tables do not match) .*({reason})") as caught:
        read_tfds(f"gear@{prepared}", size=16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("label", lambda column: column + 2, "a label is not a class"),
        ("label", lambda column: column.astype(np.int64), "label.npy: .* .not int32"),
        ("order", lambda column: column + 1, "order.npy: missing or damaged .out of range"),
        ("split", lambda column: column + 3, "split.npy: missing or damaged .out of range"),
        ("group", lambda column: column + 2**48, "group.npy: missing or damaged .out of range"),
        (
            "names",
            lambda column: column + 200,
            "names.npy: missing or damaged .* (start byte|end of data)",
        ),
        ("starts", lambda column: column[::-1], "starts.npy: missing or damaged .not ascending"),
        ("sha256", lambda column: column[:, 1:], "not uint8 .32."),
        ("height", lambda column: column[1:], "do not match its shards"),
    ],
)
def test_columns_that_do_not_match(prepared: Path, name: str, change, reason: str):
    path = prepared / "gear" / "1.0.0" / "columns" / f"{name}.npy"
    before = path.read_bytes()
    np.save(path, change(np.load(path)))
    sums = path.parents[1] / "SHA256SUMS"
    old, new = (hashlib.sha256(data).hexdigest() for data in (before, path.read_bytes()))
    sums.write_text(sums.read_text().replace(old, new))
    with pytest.raises(DataError, match=reason) as caught:
        read_tfds(f"gear@{prepared}", size=16)
    assert "\n" not in str(caught.value)


def test_two_rows_of_one_path_in_an_older_set_are_refused(prepared: Path):
    def repeated(rows):
        first, _, *others = rows["path"].tobytes().split(b"\0")
        return np.frombuffer(b"\0".join([first, first, *others]), np.uint8)

    as_before(prepared / "gear" / "1.0.0", path=repeated)
    with pytest.raises(DataError, match="its tables do not match its shards"):
        read_tfds(f"gear@{prepared}", size=16)


def test_a_set_grows_from_one_of_older_code(tmp_path: Path):
    """Its shards are kept as they are, beside new ones."""
    root, out = write_set(tmp_path / "data", {"a": 30, "b": 30}), tmp_path / "out"
    prepare(root, out, size=16, workers=1, say=lambda line: None)
    as_before(out / "gear" / "1.0.0")
    write_set(root, {"a": 9}, start=100)
    said: list[str] = []
    prepare(root, out, size=16, workers=1, say=said.append)
    assert "pictures 9 added" in said[-1]
    assert "3 kept" in said[-1]
    assert (out / "gear" / "2.0.0" / "index.npz").is_file()
    assert len([*(out / "gear" / "2.0.0").glob("*.descriptors")]) == len(read_all(out).shards) - 3
    folder = require_clean(read_folder(root, size=16))
    ours = read_all(out)
    assert ours.fingerprint == folder.fingerprint
    assert [r.descriptor for r in ours.records] == [r.descriptor for r in folder.records]
    prepare(root, out, size=16, workers=1, say=said.append)
    assert said[-1].endswith("2.0.0: nothing has changed")
