"""Detects damage in the compressed data of a JPEG that Pillow does not report.

libjpeg fills missing data with grey and skips left-over data. It warns of both, but Pillow drops
the warning. Damaged data (zeroed, cut and closed, bytes lost, copied as text) put the decoder out
of step: it runs out of data before the image is whole, or data are left over. The number of bytes
that it reads shows this, so it gets the file with filler in place of the end marker.

Not detected: damage that keeps the length of the data, damage in arithmetic coding, and left-over
data in files with several scans or restarts.
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
_FEW, _MANY = 16, 2**14  # counts at which a text-like pattern of line ends is no coincidence
_AHEAD = 8  # bytes that the decoder reads ahead
_FILLER = b"\x55" * 16  # decodes to a few patterned blocks


@dataclass(frozen=True)
class Scans:
    """Position of the compressed data of the first image in a file."""

    frame: int  # start-of-frame marker, which names the coding; 0: none
    starts: tuple[int, ...]  # position of the data of each scan
    restarts: bool  # a scan holds restart markers, at which a decoder recovers
    end: int  # position of the end marker

    @property
    def in_step(self) -> bool:
        """Whether `Watched` can check all data: one scan in one piece."""
        return self.frame in _SEQUENTIAL and len(self.starts) == 1 and not self.restarts


def scans(data: bytes) -> Scans | None:
    """The scans of a file, found from marker to marker (ISO 10918-1, annex B).

    None if the end marker is missing. Segments are skipped by their length, so the end marker of an
    embedded thumbnail does not count. Bytes after the end marker are ignored: phones append
    previews and video.
    """
    position, frame, restarts = 2, 0, False
    starts = []
    while match := _MARKER.search(data, position):
        marker = data[match.start() + 1]
        position = match.end()
        if marker == _END[1]:
            return Scans(frame, tuple(starts), restarts, match.start())
        if marker in (0x01, 0xD8):  # these two have no length; all others do
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
    """A file of one scan that records how far its decoder reads, from `watch` on.

    The decoder gets all but the last bytes, then these and as much filler as it reads ahead, then
    more filler. It stops reading when it has all pixels; `fault` interprets that position.
    """

    def __init__(self, data: bytes, layout: Scans):
        (start,) = layout.starts
        whole = data[: layout.end].rstrip(b"\xff")  # fill bytes may precede a marker
        super().__init__(b"".join((whole, _FILLER, _END)))
        last = max(start, len(whole) - _AHEAD)
        self._stops = last, len(whole) + _AHEAD
        self._padded = not any(whole[last:])  # cameras pad with zeros

    def watch(self) -> None:
        """Call it after the headers are read: Pillow reads them in 40 small pieces."""
        self.read = self._read_to_a_stop

    def _read_to_a_stop(self, size: int) -> bytes:
        position = self.tell()
        for stop in self._stops:
            if position < stop:
                size = min(size, stop - position)
                break
        return super().read(size)

    @property
    def fault(self) -> str | None:
        """The fault in the data after decoding, or None."""
        last, ahead = self._stops
        if self.tell() > ahead:
            return "truncated JPEG (its data end before the picture is whole)"
        if self.tell() <= last and not self._padded:
            return "damaged JPEG (data are left over when the picture is whole)"
        return None


def fault_in_pieces(data: bytes, layout: Scans) -> str | None:
    """The fault of a JPEG with several scans or restarts that shows without decoding, or None."""
    for start, end in itertools.pairwise((*layout.starts, layout.end)):
        numbers = bytes(marker[1] for marker in _RESTART.findall(data, start, end))
        if numbers != (_IN_ORDER * (1 + len(numbers) // 8))[: len(numbers)]:
            return "damaged JPEG (a part of its data is missing)"
    compressed = data[layout.starts[0] : layout.end] if layout.starts else b""
    if len(set(compressed)) < 255:  # flat images repeat few bytes, so counts prove nothing
        return None
    lines = compressed.count(b"\n")
    without = len(compressed) > _MANY and b"\r" not in compressed
    if without or _FEW < lines == compressed.count(b"\r\n"):
        return "damaged JPEG (it was copied as text)"
    return None


def with_filler(data: bytes, layout: Scans) -> bytes | None:
    """The file with filler after each piece of its data; None for arithmetic coding.

    A decoder skips the filler after a whole piece and decodes it in place of missing data.
    Arithmetic coding ends in another way.
    """
    if not layout.starts or layout.frame not in _SEQUENTIAL + _PROGRESSIVE:
        return None
    parts, done, position = [], 0, layout.starts[0]
    while marker := _MARKER_OR_RESTART.search(data, position):
        piece_end = len(data[position : marker.start()].rstrip(b"\xff")) + position
        parts += data[done:piece_end], _FILLER
        done, position = piece_end, marker.end()
        if marker.start() >= layout.end:
            break
        if not 0xD0 <= data[marker.start() + 1] <= 0xD7:
            following = [start for start in layout.starts if start >= position]
            if not following:  # tables after the last scan
                break
            position = following[0]
    return b"".join((*parts, data[done : layout.end], _END))
