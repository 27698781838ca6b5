"""The arrays of an `.npz` file in memory, without a copy.

`numpy.load` takes four times as long for the many small files of a large set, as it copies each
array and parses its header as Python.
"""

import io
import math
import re
import struct
import zipfile

import numpy as np
from jaxtyping import Shaped

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)


def arrays_in(data: bytes) -> dict[str, tuple[Shaped[np.ndarray, "..."], int]]:
    """Each array in the content of an `.npz` file that `numpy.savez` wrote, and its offset there.

    Raises:
        ValueError, zipfile.BadZipFile: not such a file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    return {info.filename.removesuffix(".npy"): _array(data, info) for info in members}


def _array(data: bytes, info: zipfile.ZipInfo) -> tuple[Shaped[np.ndarray, "..."], int]:
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    start = info.header_offset + 30 + name + extra
    magic, length = struct.unpack_from("<8sH", data, start)
    header = _HEADER.fullmatch(data, start + 10, start + 10 + length)
    if info.compress_type != zipfile.ZIP_STORED or magic != b"\x93NUMPY\x01\x00" or not header:
        raise ValueError(f"{info.filename} is no plain array")
    shape = tuple(map(int, header[2].replace(b",", b" ").split()))
    offset = start + 10 + length
    dtype = np.dtype(header[1].decode())
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape), offset
