"""Reads weight files as named arrays: safetensors, torch's `.pth`, TensorFlow.js `model.json`.

It reads weights of any network. It treats files as hostile: it checks sizes before it allocates
memory, keeps paths in a file inside its folder, and runs nothing from a file.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jax.numpy  # noqa: F401 (registers bfloat16 with numpy, for safetensors)
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxgear.errors import CheckpointError
from jaxgear.files import from_json, read_regular
from jaxgear.models.pretrained.files.torch_zip import read_torch_zip

JSON_LIMIT = 16 * 2**20  # bytes; if they are all `[]`, they take 0.4 GB in memory
TOTAL_LIMIT = 2**30  # bytes of tensors; ResNet-152 has 0.24 GB


@dataclass(frozen=True)
class Source:
    """The content of a weight file."""

    tensors: dict[str, np.ndarray]  # as stored: names, layouts and dtypes of the source
    metadata: dict[str, str] = field(default_factory=dict)  # of a safetensors file
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)  # Keras: name -> its config
    config: dict[str, Any] = field(default_factory=dict)  # config.json of a model folder


def read_weights(path: Path) -> Source:
    """Reads a file, or a folder with one model. The content decides the format, not the name.

    Raises:
        CheckpointError: it is missing, damaged, truncated or unsafe; one line with the file's name.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file() and path.exists():
            raise CheckpointError(f"{path}: not a regular file")
        if path.stat().st_size > TOTAL_LIMIT:
            raise CheckpointError(f"{path}: more than {TOTAL_LIMIT >> 30} GB of weights")
        with path.open("rb") as file:
            head = file.read(16)
        if head[:4] == b"PK\x03\x04":
            return Source(read_torch_zip(path))
        if head[8:9] == b"{":
            if int.from_bytes(head[:8], "little") > JSON_LIMIT:
                raise CheckpointError(f"{path}: damaged or truncated (its header is too large)")
            return _read_safetensors(path)
        if head.lstrip()[:1] == b"{":
            return _read_tfjs(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file or folder") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        raise CheckpointError(f"{path}: a .pth older than torch 1.6; load and save it with torch")
    if head[:4] == b"\x89HDF":
        raise CheckpointError(f"{path}: HDF5 is not read; convert it with tensorflowjs_converter")
    raise CheckpointError(
        f"{path}: neither .safetensors, nor .pth, nor a TensorFlow.js model.json; give one of these"
    )


def _read_folder(folder: Path) -> Source:
    names = ("model.json", "model.safetensors", "pytorch_model.bin")
    models = [folder / name for name in names if (folder / name).is_file()]
    if not models:
        # An unpacked package has its model one or two folders down.
        models = sorted(folder.glob("*/model.json")) + sorted(folder.glob("*/*/model.json"))
    if not models:
        raise CheckpointError(f"{folder}: holds none of {', '.join(names)}; give the file itself")
    source = read_weights(models[0])
    config = models[0].parent / "config.json"
    if not config.is_file():
        return source
    return Source(source.tensors, source.metadata, source.layers, _read_json(config))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = from_json(read_regular(path, JSON_LIMIT))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({str(error)[:100]})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def _read_safetensors(path: Path) -> Source:
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Source(tensors, file.metadata() or {})
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged or truncated ({str(error)[:200]})") from error


def _read_tfjs(path: Path) -> Source:
    """Reads `model.json`: groups of weights, each stored end to end in its shard files."""
    model = _read_json(path)
    tensors: dict[str, np.ndarray] = {}
    try:
        groups = [(group["paths"], group["weights"]) for group in model["weightsManifest"]]
        layers = _keras_layers(model)
        used = [name for paths, _ in groups for name in paths]
        if len(set(used)) != len(used):
            raise CheckpointError(f"{path}: reads a shard twice")
        for paths, weights in groups:
            specs = [_weight_spec(weight, path) for weight in weights]
            data = _read_shards(path, paths, sum(size for _, _, size in specs))
            at = 0
            for name, shape, size in specs:
                if name in tensors:
                    raise CheckpointError(f"{path}: names {name!r} twice")
                tensors[name] = np.frombuffer(data, "<f4", size // 4, at).reshape(shape)
                at += size
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a TensorFlow.js layers model ({error!r})") from error
    return Source(tensors, layers=layers)


def _keras_layers(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    topology = model.get("modelTopology") or {}
    config = topology.get("model_config", topology).get("config", {})
    layers = config.get("layers", []) if isinstance(config, dict) else config
    return {layer["config"]["name"]: layer["config"] for layer in layers}


def _weight_spec(weight: dict[str, Any], path: Path) -> tuple[str, tuple[int, ...], int]:
    """Name, shape and size in bytes of an entry of the manifest."""
    name, shape = weight["name"], weight["shape"]
    if len(shape) > 8:
        raise CheckpointError(f"{path}: {name!r} has {len(shape)} axes")
    if not isinstance(name, str) or any(type(n) is not int or n < 0 for n in shape):
        raise CheckpointError(f"{path}: {name!r} has the impossible shape {shape!r}")
    if weight["dtype"] != "float32" or "quantization" in weight:
        raise CheckpointError(f"{path}: {name!r} is not plain float32; convert without quantising")
    size = 4 * math.prod(shape)
    if size > TOTAL_LIMIT:
        raise CheckpointError(f"{path}: {name!r} has the impossible shape {shape!r}")
    return name, tuple(shape), size


def _read_shards(path: Path, names: list, expected: int) -> bytes:
    shards = [path.parent / _shard_name(name, path) for name in names]
    for shard in shards:
        if not shard.is_file() or not shard.resolve().is_relative_to(path.parent.resolve()):
            raise CheckpointError(f"{shard}: missing; {path.name} needs it")
    total = sum(shard.stat().st_size for shard in shards)
    if total != expected:
        raise CheckpointError(
            f"{path}: its shards have {total} bytes and should have {expected}: truncated?"
        )
    if total > TOTAL_LIMIT:
        raise CheckpointError(f"{path}: more than {TOTAL_LIMIT >> 30} GB of weights")
    return b"".join(shard.read_bytes() for shard in shards)


def manifest_paths(path: Path) -> list[str]:
    """The shards that a `model.json` needs, relative to it; CheckpointError if any is unsafe."""
    try:
        groups = [group["paths"] for group in _read_json(path)["weightsManifest"]]
        return [_shard_name(name, path) for paths in groups for name in paths]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a TensorFlow.js layers model ({error!r})") from error


def _shard_name(name: Any, path: Path) -> str:
    """`name`, a shard in `model.json`; CheckpointError if it is not a path inside the folder."""
    windows = PureWindowsPath(str(name))
    parts = PurePosixPath(str(name)).parts
    unsafe = (
        not parts or ".." in windows.parts or windows.drive or windows.root or "\0" in str(name)
    )
    if not isinstance(name, str) or unsafe:
        raise CheckpointError(f"{path}: refused, as it reads the file {name!r} outside its folder")
    return name
