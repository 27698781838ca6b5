"""Decodes the pictures of a folder on many processes, into files from which a killed run goes on.

Each process appends whole entries to a file of its own. An entry holds what is stored of one
picture, and is found again by the sha256 of the file that it was made from; the end of a file that
was cut short is passed over. Neither JAX nor TFDS is imported here, so that a process starts soon.
"""

import hashlib
import multiprocessing
import os
import signal
import struct
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path

from PIL import Image

from jaxgear.data import images, looks
from jaxgear.data.images import ImageError
from jaxgear.data.png import encode_png
from jaxgear.data.quiet import quiet_pillow
from jaxgear.data.walk import Refused
from jaxgear.errors import DataError

_HEADER = struct.Struct("<4s32s32sIIHI")  # magic, both hashes, height, width, len(look), len(data)
_MAGIC = b"gear"
_TASK = 16  # pictures that a process is given at a time
_SUFFIX = ".staged"


@dataclass(frozen=True, slots=True)
class Staged:
    """What is known of a picture that was decoded, and where the bytes to store are."""

    sha256: str  # of the file that it came from, hex
    stored: str  # of the bytes to store, hex
    height: int  # of the file's picture
    width: int
    look: bytes
    file: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes to store."""
        with self.file.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.length, self.offset)
        if hashlib.sha256(data).hexdigest() != self.stored:
            raise DataError(f"{self.file}: damaged; remove {self.file.parent} and start again")
        return data


class Workshop:
    """What each process has: a folder to read from, and a file to append to. A context manager."""

    def __init__(self, root: Path, place: Path, size: int | None, known: frozenset[bytes]):
        """`size`: pictures are stored letterboxed at it; None: as they are, made portable.
        `known`: sha256 of files that need not be decoded.
        """
        self._root, self._size, self._known = root, size, set(known)
        self._path = place / f"{uuid.uuid4().hex}{_SUFFIX}"
        self._file = self._path.open("ab", buffering=0)

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def stage(self, paths: Sequence[str]) -> list[str | Staged | Refused]:
        """Each picture's sha256 if it is known, else its new entry, or why there is none."""
        with quiet_pillow():  # once for all of them, and not for each
            return [self._stage(path) for path in paths]

    def _stage(self, path: str) -> str | Staged | Refused:
        try:
            data = images.read_bytes(self._root / path, path)
            digest = hashlib.sha256(data).digest()
            if digest in self._known:
                return digest.hex()
            with images.decoded(data, path) as image:
                return self._keep(digest, data, image)
        except ImageError as error:
            return Refused(path, error.reason)

    def _keep(self, digest: bytes, data: bytes, image: Image.Image) -> Staged:
        if self._size is None:
            stored = images.portable_of(data, image)
        else:
            stored = encode_png(images.letterbox_image(image, self._size))
        entry = Staged(
            sha256=digest.hex(),
            stored=hashlib.sha256(stored).hexdigest(),
            height=image.height,
            width=image.width,
            look=looks.describe_image(image),
            file=self._path,
            offset=0,
            length=len(stored),
        )
        entry = replace(entry, offset=self._append(entry, stored))
        self._known.add(digest)
        return entry

    def _append(self, entry: Staged, data: bytes) -> int:
        """Writes an entry in one call; where its data begins."""
        head = _HEADER.pack(
            _MAGIC,
            bytes.fromhex(entry.sha256),
            bytes.fromhex(entry.stored),
            entry.height,
            entry.width,
            len(entry.look),
            len(data),
        )
        body = head + entry.look + data
        start = self._file.tell()
        whole = body + zlib.crc32(body).to_bytes(4, "little")
        if self._file.write(whole) != len(whole):
            raise OSError(28, "no space left on device")
        return start + len(head) + len(entry.look)


def staged(place: Path) -> Iterator[Staged]:
    """The entries that earlier runs left whole in the folder `place`."""
    for path in sorted(place.glob(f"*{_SUFFIX}")):
        with path.open("rb") as file:
            while len(head := file.read(_HEADER.size)) == _HEADER.size:
                magic, sha256, stored, height, width, look_length, length = _HEADER.unpack(head)
                offset = file.tell() + look_length
                body = head + file.read(look_length + length)
                check = file.read(4)
                if magic != _MAGIC or zlib.crc32(body).to_bytes(4, "little") != check:
                    break
                look = body[len(head) : len(head) + look_length]
                yield Staged(sha256.hex(), stored.hex(), height, width, look, path, offset, length)


def stage(
    root: Path,
    paths: Sequence[str],
    place: Path,
    *,
    size: int | None,
    workers: int,
    known: frozenset[bytes],
) -> Iterator[str | Staged | Refused]:
    """`Workshop.stage` of all `paths`, in their order, on `workers` processes (1: on this one).

    Raises:
        DataError: a process was killed.
    """
    tasks = [paths[start : start + _TASK] for start in range(0, len(paths), _TASK)]
    arguments = (root, place, size, known)
    if workers == 1 or len(tasks) == 1:
        with Workshop(*arguments) as workshop:
            for task in tasks:
                yield from workshop.stage(task)
    else:
        yield from _parallel(tasks, min(workers, len(tasks)), arguments)


_workshop: Workshop


def _parallel(
    tasks: list[Sequence[str]], workers: int, arguments: tuple
) -> Iterator[str | Staged | Refused]:
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=arguments
    )
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_work, task))
            if len(waiting) > 8 * workers:  # enough ahead that none is idle
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes was killed (out of memory?); start again to go on, with fewer "
            "--workers (1 where Python reads its program from a pipe)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(*arguments) -> None:
    """Called once in each process."""
    global _workshop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _workshop = Workshop(*arguments)


def _work(paths: Sequence[str]) -> list[str | Staged | Refused]:
    return _workshop.stage(paths)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is killed, which nothing else tells it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
