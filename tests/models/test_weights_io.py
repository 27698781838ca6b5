"""Hostile and damaged weight files: refused in one line, with nothing read that should not be."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from other_names import write_tfjs
from safetensors.numpy import save_file

from jaxgear.errors import CheckpointError
from jaxgear.models.pretrained.files.weights_files import manifest_paths, read_weights

WEIGHTS = {"a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "b/bias": np.ones(5)}


def edited(folder: Path, edit) -> Path:
    """A good model.json after `edit(model, group)`."""
    path = write_tfjs(folder, WEIGHTS)
    model = json.loads(path.read_text())
    edit(model, model["weightsManifest"][0])
    path.write_text(json.dumps(model))
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_tensors_are_read_across_shards(tmp_path):
    found = read_weights(write_tfjs(tmp_path, WEIGHTS, shards=5)).tensors
    assert found.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "\\\\host\\share",
        "a\0b",
        "",
        7,
        None,
    ],
)
def test_paths_outside_the_folder_are_refused(tmp_path, name):
    (tmp_path / "secret.bin").write_bytes(bytes(68))

    def edit(model, group):
        group["paths"] = [name]

    path = edited(tmp_path / "model", edit)
    assert "outside its folder" in refused(path)
    with pytest.raises(CheckpointError, match="outside its folder"):
        manifest_paths(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(68))
    path = edited(tmp_path / "model", lambda model, group: group.update(paths=["link.bin"]))
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(CheckpointError, match=r"link\.bin"):
        read_weights(path)


@pytest.mark.parametrize("shape", [[10**9, 10**9], [-1, 12], [1.5], [True], "34", [1] * 99, [[3]]])
def test_absurd_shapes_are_refused(tmp_path, shape):
    def edit(model, group):
        group["weights"][0]["shape"] = shape

    refused(edited(tmp_path, edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda model, group: group["weights"].append(group["weights"][0]),
        lambda model, group: group["paths"].append(group["paths"][0]),
        lambda model, group: group["weights"][0].update(dtype="uint8"),
        lambda model, group: group["weights"][0].update(quantization={"dtype": "uint8"}),
        lambda model, group: group["weights"][0].pop("shape"),
        lambda model, group: group["weights"][0].update(name=3),
        lambda model, group: group.update(weights=7),
        lambda model, group: group.update(paths={"a": 1}),
        lambda model, group: model.update(weightsManifest=None),
        lambda model, group: model.update(modelTopology=[1]),
        lambda model, group: model["modelTopology"]["model_config"].update(config={"layers": [0]}),
    ],
)
def test_broken_descriptions_are_refused(tmp_path, edit):
    with pytest.raises(CheckpointError, match="model"):
        read_weights(edited(tmp_path, edit))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{" * 100_000,
        b'{"a": 1}',
        b"[1]",
        b"hello",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\x80\x02\x8a\x0al\xfc\x9cF",
        struct.pack("<Q", 2**60) + b"{}" + bytes(40),
        struct.pack("<Q", 8) + b'{"a":[]}',
        b"PK\x03\x04" + bytes(60),
    ],
)
def test_other_content_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file")


def test_safetensors_that_lies_about_its_size_is_refused(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}
    text = json.dumps(header).encode()
    (tmp_path / "big.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    refused(tmp_path / "big.safetensors")
    save_file({"a": np.ones(100, np.float32)}, tmp_path / "cut.safetensors")
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    assert "truncated" in refused(tmp_path / "cut.safetensors")
