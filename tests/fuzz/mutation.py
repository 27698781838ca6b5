"""Hypothesis strategies that damage files.

Random damage seldom gets past a parser's first check. So whole pieces of a format (PNG and RIFF
chunks, JPEG segments) are moved too, and PNG's checksums are repaired afterwards.
"""

import struct
import zlib

from hypothesis import strategies as st

EXTREMES = [
    *(b"\0", b"\xff", b"\x7f", b"\x80", b"\0" * 4, b"\xff" * 4, b"\x1b\x6e", b"\x6e\x1b"),
    *(b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\x40\0", b"\0\x40\0\0"),
]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes], most: int = 4) -> bytes:
    """One of `originals` after one to `most` changes."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, most))):
        data = draw(_change(data, originals))
    return _repaired(data) if draw(st.booleans()) else data


@st.composite
def _change(draw: st.DrawFn, data: bytes, originals: list[bytes]) -> bytes:
    size = len(data)
    # Headers state sizes, so half of all places are among the first 100 bytes.
    place = st.one_of(st.integers(0, min(100, size)), st.integers(0, size))
    at = draw(place)
    kind = draw(st.sampled_from(CHANGES))
    if kind == "flip":
        bit = draw(st.integers(0, 7))
        return data[:at] + bytes(b ^ (1 << bit) for b in data[at : at + 1]) + data[at + 1 :]
    if kind == "write":
        new = draw(st.one_of(st.sampled_from(EXTREMES), st.binary(min_size=1, max_size=8)))
        return data[:at] + new + data[at + len(new) :]
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + draw(st.binary(max_size=40)) + data[at:]
    if kind == "prefix":
        return draw(st.binary(max_size=20)) + data
    end = draw(st.integers(at, size))
    if kind == "remove":
        return data[:at] + data[end:]
    if kind == "repeat":
        return data[:end] + data[at:end] * draw(st.integers(1, 20)) + data[end:]
    if kind == "splice":
        other = draw(st.sampled_from(originals))
        return data[:at] + other[draw(st.integers(0, len(other))) :]
    pieces = _pieces(data)
    i, j = draw(st.integers(0, len(pieces) - 1)), draw(st.integers(0, len(pieces) - 1))
    if kind == "swap":
        pieces[i], pieces[j] = pieces[j], pieces[i]
    elif kind == "copy":
        pieces[j:j] = [pieces[i]] * draw(st.sampled_from([1, 2, 100]))
    else:
        del pieces[i]
    return b"".join(pieces)


CHANGES = ("flip", "flip", "write", "write", "cut", "insert", "prefix", "remove", "repeat",
           "splice", "swap", "copy", "drop")  # fmt: skip


def _pieces(data: bytes) -> list[bytes]:
    """The file in the pieces of its format; the rest that cannot be parsed is one piece."""
    parts, at = [], 0
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        parts, at = [data[:8]], 8
        while at + 8 <= len(data) and len(parts) < 50:
            end = at + 12 + struct.unpack_from(">I", data, at)[0]
            parts.append(data[at:end])
            at = end
    elif data.startswith(b"RIFF"):
        parts, at = [data[:12]], 12
        while at + 8 <= len(data) and len(parts) < 50:
            size = struct.unpack_from("<I", data, at + 4)[0]
            end = at + 8 + size + size % 2
            parts.append(data[at:end])
            at = end
    elif data.startswith(b"\xff\xd8"):
        parts, at = [data[:2]], 2
        while data[at : at + 1] == b"\xff" and at + 4 <= len(data) and len(parts) < 50:
            end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
            parts.append(data[at:end])
            at = end
    else:
        step = max(1, len(data) // 12)
        return [data[i : i + step] for i in range(0, len(data), step)] or [b""]
    return [*parts, data[at:]]


def _repaired(data: bytes) -> bytes:
    """Repairs the checksums of PNG chunks, or the size in a RIFF header."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        pieces = _pieces(data)
        for k, piece in enumerate(pieces[1:], 1):
            if len(piece) >= 12:
                pieces[k] = piece[:-4] + struct.pack(">I", zlib.crc32(piece[4:-4]))
        return b"".join(pieces)
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    return data
