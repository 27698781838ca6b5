""".pth files: those that torch wrote are read; those that would run something are refused."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from random_weights import torchvision_weights

from jaxgear.errors import CheckpointError
from jaxgear.models.pretrained.files.torch_zip import read_torch_zip
from jaxgear.models.pretrained.files.weights_files import read_weights

GOLDEN = Path(__file__).parent / "golden"  # made by scripts/make_torch_golden.py


def test_tensors_of_every_kind(tmp_path):
    found = read_torch_zip(GOLDEN / "odd.pth")
    np.testing.assert_array_equal(found["transposed"], np.arange(12.0).reshape(3, 4).T)
    np.testing.assert_array_equal(found["slice"], [2, 5, 8])
    np.testing.assert_array_equal(found["parameter"], [1.5, -2])
    assert found["half"].dtype == np.float16
    np.testing.assert_array_equal(found["half"], np.array([0.5, 1], np.float16))
    np.testing.assert_array_equal(found["bfloat16"].astype(np.float32), [0.5, 3])
    assert found["count"] == 7
    assert found["count"].shape == ()
    assert found["empty"].shape == (0, 3)


def test_the_old_format_is_named():
    with pytest.raises(CheckpointError, match=r"before_1\.6\.pth: a \.pth older than torch 1\.6"):
        read_weights(GOLDEN / "before_1.6.pth")


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", entries.pop("byteorder", b"little"))
        for name, content in entries.items():
            file.writestr(f"archive/data/{name.lstrip('_')}", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_torch_zip(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Runs:
    """Pickled, this asks the reader to call `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_calls_are_refused_by_name_and_not_made(tmp_path, protocol):
    proof = tmp_path / "ran"
    data = pickle.dumps({"a": Runs(os.system, f"touch {proof}")}, protocol)
    message = refused(archive(tmp_path / "evil.pth", data))
    assert f"'{os.name}.system'" in message
    assert not proof.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open", "bytearray"])
def test_builtins_are_refused(tmp_path, name):
    data = f"cbuiltins\n{name}\n(S'1'\ntR.".encode()
    assert f"'builtins.{name}'" in refused(archive(tmp_path / "evil.pth", data))


@pytest.mark.parametrize(
    "data",
    [
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"ctorch\nFloatStorage\n(I3\ntR.",  # allowed, but not to be called
        b"ccollections\nOrderedDict\n(I3\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(I3\ntR.",
        b"ctorch\nFloatStorage\nN}S'name'\nS'os.system'\ns\x86b(tR.",  # BUILD, then a call
        b"\x82\x01.",  # a copyreg extension
        b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",  # a buffer of 1 PB
        b"\x80\x02\x8c",
        b"",
        b".",
        b"N.",
        b"}.",
        b"}S'a'\nI1\ns.",
        b"]" * 100_000,
    ],
)
def test_crafted_pickles_are_refused(tmp_path, data):
    refused(archive(tmp_path / "evil.pth", data))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2, 2), (3, 1), 0),
        ((10**6,), (0,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
        ((2, 2), (1,), 0),
        ((1.5,), (1,), 0),
        ((2**62, 2**62), (1, 1), 0),
        ((1,) * 40, (1,) * 40, 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, size, stride, offset):
    good = crafted(tmp_path, (2, 2), (2, 1), 0)
    np.testing.assert_array_equal(read_torch_zip(good)["a"], [[1, 2], [3, 4]])
    refused(crafted(tmp_path, size, stride, offset))


def crafted(folder: Path, size, stride, offset, count=4, **entries: bytes) -> Path:
    """A state dict {"a": tensor} on a storage of 1, 2, 3, 4, with any claims about it."""
    dump = pickle.dumps((offset, size, stride, False, None), 2)[2:-1]  # less PROTO and STOP
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" + number(count) + b"tQ"
    assert dump[:1] == b"("  # MARK, then the five, then TUPLE
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + dump[1:] + b"R"
    data = b"\x80\x02}U\x01a" + call + b"s."
    entries = {"_0": np.array([1, 2, 3, 4], "<f4").tobytes()} | entries
    return archive(folder / "crafted.pth", data, **entries)


def number(count: int) -> bytes:
    return b"J" + struct.pack("<i", count)


def test_storages_are_checked(tmp_path):
    refused(crafted(tmp_path, (2, 2), (2, 1), 0, count=5))
    refused(crafted(tmp_path, (2, 2), (2, 1), 0, _0=b"123"))
    refused(crafted(tmp_path, (2, 2), (2, 1), 0, _0=b""))
    assert "big-endian" in refused(crafted(tmp_path, (2, 2), (2, 1), 0, byteorder=b"big"))


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"]" * 1_000_000)
    assert "compressed" in refused(path)
    assert "too large" in refused(archive(tmp_path / "large.pth", b"]" * 10_000_000))


def test_cut_off_files_are_refused(tmp_path):
    data = (GOLDEN / "resnet18_width2.pth").read_bytes()
    for end in (10, 1000, len(data) // 2, len(data) - 30):
        (tmp_path / "cut.pth").write_bytes(data[:end])
        refused(tmp_path / "cut.pth")
    flipped = bytearray(data)
    flipped[data.index(torchvision_weights(18, 2)["fc.weight"].tobytes()) + 9] ^= 255
    (tmp_path / "flipped.pth").write_bytes(flipped)
    refused(tmp_path / "flipped.pth")


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", b"hello")
    assert "not saved by torch" in refused(tmp_path / "other.zip")
