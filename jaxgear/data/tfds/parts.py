"""Reads the files beside a shard, and compares them with their sums."""

import hashlib
import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from jaxgear.data.tfds.descriptors import Span
from jaxgear.data.tfds.shards import SUMS, descriptor_file, table_of
from jaxgear.errors import DataError
from jaxgear.files import read_regular

LIMIT = 2**31  # bytes of one table; an image takes under one kilobyte
DAMAGE = (OSError, ValueError, LookupError, zipfile.BadZipFile, struct.error)

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)


class Part(NamedTuple):
    """The rows of a shard."""

    path: Path
    split: str
    rows: range  # of the set, in the order of the shards
    sums: tuple[str, ...]  # of the shard and the files beside it


def read_part(
    path: Path, split: str, rows: range, sums: Mapping[str, str]
) -> tuple[Part, Span, dict[str, Shaped[np.ndarray, "..."]]]:
    """The shard at `path`, where its descriptors are, and the arrays of its table.

    Only the lengths of the shard and of the descriptors are compared.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    table, beside = table_of(path), [path, descriptor_file(path)]
    try:
        found = arrays_in(content(table, sums))
        sizes = found.pop("bytes")[0].reshape(-1).tolist()
        if "look" in found:  # older versions kept the descriptors here
            beside = [path]
            array, offset = found["look"]
            if array.dtype != np.uint8 or array.ndim != 2:
                raise ValueError("its columns do not match")
            place = table, offset, array.shape, None
        else:
            width = sizes[1] // len(rows)  # `rows` is not empty
            place = beside[1], 0, (len(rows), width), sums[beside[1].name]
    except DAMAGE as error:
        raise damaged(table, error) from None
    for file, size in zip(beside, sizes, strict=True):
        try:
            if (actual := file.stat().st_size) != size:
                raise ValueError(f"{actual} bytes instead of {size}")
            sums[file.name]
        except (OSError, ValueError, KeyError) as error:
            raise damaged(file, error) from None
    part = Part(path, split, rows, tuple(sums[file.name] for file in (path, table, *beside[1:])))
    return part, Span(rows.start, *place), {name: array for name, (array, _) in found.items()}


def arrays_in(data: bytes) -> dict[str, tuple[Shaped[np.ndarray, "..."], int]]:
    """Each array in the content of an `.npz` file that `numpy.savez` wrote, and its offset there.

    `numpy.load` takes four times as long for the many small files of a large set, as it copies
    each array and parses its header as Python.

    Raises:
        ValueError, zipfile.BadZipFile, struct.error: not such a file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    return {info.filename.removesuffix(".npy"): _array(data, info) for info in members}


def _array(data: bytes, info: zipfile.ZipInfo) -> tuple[Shaped[np.ndarray, "..."], int]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    dtype, shape, offset = npy_header(data, info.header_offset + 30 + name + extra)
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape), offset


def npy_header(data: bytes, start: int = 0) -> tuple[np.dtype, tuple[int, ...], int]:
    """The type, shape and offset of the array that `numpy.save` wrote at `start`.

    Raises:
        ValueError, struct.error: there is none.
    """
    magic, length = struct.unpack_from("<8sH", data, start)
    header = _HEADER.fullmatch(data, start + 10, start + 10 + length)
    if magic != b"\x93NUMPY\x01\x00" or not header:
        raise ValueError("not a plain array")
    shape = tuple(map(int, header[2].replace(b",", b" ").split()))
    return np.dtype(header[1].decode()), shape, start + 10 + length


def content(path: Path, sums: Mapping[str, str]) -> bytes:
    """The content of a file; OSError or ValueError if it is missing or not what its sum says."""
    data = read_regular(path, LIMIT)
    if hashlib.sha256(data).hexdigest() != sums.get(path.name):
        raise ValueError(f"does not match {SUMS}")
    return data


def damaged(path: Path, error: Exception, root: Path | None = None) -> DataError:
    """The error about a file of the version `root` that is missing or damaged.

    None: the version is the folder of the file.
    """
    reason = error.strerror if isinstance(error, OSError) else error
    base = (root or path.parent).parent
    return DataError(f"{path}: missing or damaged ({reason}); remove {base} and prepare it again")


def unlike(folder: Path) -> DataError:
    """The error about a set whose files are not of one version."""
    return DataError(
        f"{folder}: its tables do not match its shards; remove it and prepare it again"
    )
