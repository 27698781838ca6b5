"""Reads the tensors of a `.pth` file without torch and without running code from the file.

A `.pth` is a zip with a pickle of the structure (`<name>/data.pkl`) and one file of raw numbers per
storage (`<name>/data/<key>`). A pickle can call anything, so only calls that rebuild tensors are
allowed. An error names any other call.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgear.errors import CheckpointError

PICKLE_LIMIT = 4 * 2**20  # bytes; the structure of a ResNet-152 takes 0.2 MB

DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def read_torch_zip(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name of a state dict saved by torch 1.6 or later, alone or under "state_dict".

    Raises:
        CheckpointError: the file is anything else; one line with the file's name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tree = _Unpickler(archive, path).load()
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a hostile pickle can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{path}: damaged or not a torch file ({reason})") from error
    while isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict) or not tree:
        raise CheckpointError(f"{path}: holds no state dict; save `model.state_dict()`")
    for name, box in tree.items():
        if not isinstance(name, str) or not isinstance(getattr(box, "array", None), np.ndarray):
            name = repr(name)[:80]
            raise CheckpointError(f"{path}: {name} is no tensor; save `model.state_dict()` alone")
    return {name: box.array for name, box in tree.items()}


class _Box:
    """A storage or tensor on the pickle's stack. A pickle could call the `__setstate__` of a plain
    array; a box has nothing to call.
    """

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array


class _Global:
    """A stand-in for an allowed global. It has no `__dict__`, so a pickle cannot alter it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *args: Any) -> Any:
        if self.name == "torch._utils._rebuild_tensor_v2":
            return _rebuild_tensor(*args[:4])
        if self.name == "torch._utils._rebuild_parameter":
            return args[0]
        if self.name == "collections.OrderedDict" and not args:
            return OrderedDict()
        raise pickle.UnpicklingError(f"{self.name} called in an unknown way")


ALLOWED = {
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    *(f"torch.{name}" for name in DTYPES),
}


def _with_plain_keys(opcode: bytes) -> Callable[["_Unpickler"], None]:
    """An opcode that fills a dictionary, limited to keys that are text or integers.

    A tuple that holds a second tuple twice, which holds a third twice, and so on, takes for ever to
    hash.
    """
    fill = pickle._Unpickler.dispatch[opcode[0]]

    def filled(self: "_Unpickler") -> None:
        keys = self.stack[-2:-1] if opcode == pickle.SETITEM else self.stack[::2]
        if not all(isinstance(key, str | int) for key in keys):
            raise pickle.UnpicklingError("a key is neither text nor a number")
        fill(self)

    return filled


class _Unpickler(pickle._Unpickler):
    """Based on Python's unpickler: the C one allocates as much memory as a file tells it to."""

    # Without the opcodes that torch never writes: buffers (which allocate before they read),
    # copyreg's extensions, sets.
    dispatch = {  # noqa: RUF012 (as in the base class)
        opcode: method
        for opcode, method in pickle._Unpickler.dispatch.items()
        if bytes([opcode]) not in b"\x96 \x97 \x98 \x82 \x83 \x84 \x8f \x90 \x91".split()
    }
    for opcode in (pickle.SETITEM, pickle.SETITEMS, pickle.DICT):
        dispatch[opcode[0]] = _with_plain_keys(opcode)

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self._archive, self._path = archive, path
        # A budget of bytes: in a hostile zip, entries may overlap and be read many times.
        self._left = path.stat().st_size
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise CheckpointError(f"{path}: a zip, but not saved by torch")
        self._folder = names[0].removesuffix("data.pkl")
        order = self._folder + "byteorder"
        if order in archive.namelist() and self._read(order).strip() != b"little":
            raise CheckpointError(f"{path}: saved on a big-endian machine; save it on another")
        if archive.getinfo(names[0]).file_size > PICKLE_LIMIT:
            raise CheckpointError(f"{path}: its data.pkl is too large for a state dict")
        self._storages: dict[str, _Box] = {}
        super().__init__(io.BytesIO(self._read(names[0])), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in ALLOWED:
            full = full[:80]
            raise CheckpointError(
                f"{self._path}: refused, it would run {full!r}; save only tensors (state_dict)"
            )
        return _Global(full)

    def persistent_load(self, pid: Any) -> _Box:
        kind, cls, key, _, count = pid
        if kind != "storage" or not isinstance(cls, _Global) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage record is not of torch's form")
        dtype = DTYPES[cls.name.removeprefix("torch.")]
        if key not in self._storages:
            data = self._read(f"{self._folder}data/{key}")
            self._storages[key] = _Box(np.frombuffer(data, dtype))
        storage = self._storages[key]
        if storage.array.dtype != dtype or storage.array.size != count:
            raise pickle.UnpicklingError(f"storage {key} has another size or type than recorded")
        return storage

    def _read(self, name: str) -> bytes:
        info = self._archive.getinfo(name)
        # torch does not compress, so no entry is larger than the file.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(f"{self._path}: {name} is compressed, which torch never does")
        self._left -= info.file_size
        if self._left < 0:
            raise CheckpointError(f"{self._path}: its parts are larger than the file")
        return self._archive.read(info)  # checks the CRC


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> _Box:
    """A copy of the view that torch saved, after a check that it lies within its storage."""
    if len(size) != len(stride) or len(size) > 8:
        raise pickle.UnpicklingError(f"a tensor of {len(size)} axes and {len(stride)} strides")
    if any(type(n) is not int or not 0 <= n < 2**40 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor has an impossible size or stride")
    array = storage.array
    if 0 in size:
        return _Box(np.zeros(size, array.dtype))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= array.size or math.prod(size) > array.size:
        raise pickle.UnpicklingError(f"a tensor of size {size!r} exceeds its storage")
    steps = [step * array.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(array[offset:], size, steps, writeable=False)
    return _Box(view.copy())
