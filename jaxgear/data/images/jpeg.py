"""Whether a JPEG's compressed data are those of its whole picture, which its decoder does not say.

libjpeg fills what is missing with grey, skips what is left over, and warns of both; Pillow drops
the warning. What was damaged on the way (zeroed, cut and closed, bytes lost, copied as text) puts
the decoder out of step, so that it runs out of data before the picture is whole, or has some left.
That shows in how far it reads: the file is given to it with filler in the place of its end marker.
Damage after which the data are just as long stays unseen, as does any to arithmetic coding, and
data left over in a file of several scans or with restarts.
"""

import io
import itertools
import re
from dataclasses import dataclass

START = b"\xff\xd8\xff"

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MARKER_OR_RESTART = re.compile(rb"\xff[^\x00\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_IN_ORDER = bytes(range(0xD0, 0xD8))
_FRAMES = bytes(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC})  # start of frame, of any coding
_SEQUENTIAL, _PROGRESSIVE = b"\xc0\xc1", b"\xc2"  # with Huffman codes
_SCAN, _INTERVAL = 0xDA, 0xDD
_FEW, _MANY = 16, 2**14  # bytes, of which chance makes no text
_AHEAD = 8  # bytes that the decoder takes before it needs them
_FILLER = b"\x55" * 16  # as compressed data it is a few blocks of some pattern


@dataclass(frozen=True)
class Scans:
    """Where the compressed data of the first picture in a file are."""

    frame: int  # marker that says how they are coded; 0: none was met
    starts: tuple[int, ...]  # of each scan's data
    restarts: bool  # there are markers inside of a scan, from which a decoder goes on
    end: int  # where the end marker is

    @property
    def in_step(self) -> bool:
        """Whether `Watched` finds out all that there is: one scan in one piece."""
        return self.frame in _SEQUENTIAL and len(self.starts) == 1 and not self.restarts


def scans(data: bytes) -> Scans | None:
    """Walks from marker to marker (ISO 10918-1, annex B); None where the end marker is missing.

    Segments are skipped by their length, so that the end marker of an embedded thumbnail does not
    count; bytes after the end marker (phones append previews and video) do not matter.
    """
    position, frame, restarts = 2, 0, False
    starts = []
    while found := _MARKER.search(data, position):
        marker = data[found.start() + 1]
        position = found.end()
        if marker == _END[1]:
            return Scans(frame, tuple(starts), restarts, found.start())
        if marker in (0x01, 0xD8):  # all others but these two are followed by a length
            continue
        if marker == _INTERVAL:
            restarts = restarts or data[position + 2 : position + 4] != b"\0\0"
        if marker in _FRAMES:
            frame = frame or marker
        position += int.from_bytes(data[position : position + 2], "big")
        if marker == _SCAN:
            starts.append(position)
    return None


class Watched(io.BytesIO):
    """A file of one scan, whose decoder is watched.

    It gets all but the last bytes at once, then one at a time, and filler after them. The decoder
    asks no further when it has all pixels: `fault` tells what that means.
    """

    def __init__(self, data: bytes, found: Scans):
        (start,) = found.starts
        whole = data[: found.end].rstrip(b"\xff")  # fill bytes may stand before a marker
        super().__init__(b"".join((whole, _FILLER, _END)))
        self._end = len(whole)
        self._last = max(start, self._end - _AHEAD)
        self._padded = not any(whole[self._last :])  # cameras fill up blocks of their memory

    def read(self, size: int | None = -1) -> bytes:
        position = self.tell()
        if position >= self._last:
            return super().read(1)
        room = self._last - position
        return super().read(room if size is None or size < 0 else min(size, room))

    @property
    def fault(self) -> str | None:
        """What is wrong with the data of a picture that was decoded from here."""
        if self.tell() > self._end + _AHEAD:
            return "truncated JPEG (its data end before the picture does)"
        if self.tell() <= self._last and not self._padded:
            return "damaged JPEG (data are left over when the picture is whole)"
        return None


def fault_in_pieces(data: bytes, found: Scans) -> str | None:
    """What can be told of a JPEG of several scans, or with restarts, without decoding it."""
    for start, end in itertools.pairwise((*found.starts, found.end)):
        numbers = bytes(marker[1] for marker in _RESTART.findall(data, start, end))
        if numbers != (_IN_ORDER * (1 + len(numbers) // 8))[: len(numbers)]:
            return "damaged JPEG (a part of its data is gone)"
    compressed = data[found.starts[0] : found.end] if found.starts else b""
    if len(set(compressed)) < 255:  # of a flat picture, in which some bytes come again and again
        return None
    lines = compressed.count(b"\n")
    without = len(compressed) > _MANY and b"\r" not in compressed
    if without or _FEW < lines == compressed.count(b"\r\n"):
        return "damaged JPEG (it was copied as text)"
    return None


def with_filler(data: bytes, found: Scans) -> bytes | None:
    """The same picture, if it is whole: filler after each piece of its data, which is then skipped.

    Where data are missing it is taken for them. None for arithmetic coding, which ends otherwise.
    """
    if not found.starts or found.frame not in _SEQUENTIAL + _PROGRESSIVE:
        return None
    parts, done, position = [], 0, found.starts[0]
    while marker := _MARKER_OR_RESTART.search(data, position):
        piece_end = len(data[position : marker.start()].rstrip(b"\xff")) + position
        parts += data[done:piece_end], _FILLER
        done, position = piece_end, marker.end()
        if marker.start() >= found.end:
            break
        if not 0xD0 <= data[marker.start() + 1] <= 0xD7:
            following = [start for start in found.starts if start >= position]
            if not following:  # tables after the last scan
                break
            position = following[0]
    return b"".join((*parts, data[done : found.end], _END))
