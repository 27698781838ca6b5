"""Files that are complete or absent, never half-written."""

import contextlib
import errno
import json
import math
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxgear.errors import UsageError

STDOUT = Path("-")  # what stands for standard output where an output is named
PATIENCE = 5  # seconds for somebody to read from a pipe


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end: a reader, or a crash, meets the old file or
    the new one. After an exception there is the old one.

    A symbolic link is followed, and mode and group of the old file stay. A device or a pipe is not
    replaced but written to, as it comes.
    """
    if (status := _status(path)) is not None and not stat.S_ISREG(status.st_mode):
        with _open_in_place(path, status) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, f"no folder {path.parent}", str(path))
    new = path.with_name(f".new-{path.name}")
    try:
        with new.open("wb") as file:
            if status is not None:
                with contextlib.suppress(OSError, AttributeError):  # not ours to give; Windows
                    os.chown(new, -1, status.st_gid)
                new.chmod(stat.S_IMODE(status.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    """Of what a path leads to; None if that is not there yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _open_in_place(path: Path, status: os.stat_result) -> BinaryIO:
    """A device or pipe, to be written; OSError for a folder, and a pipe that nobody reads."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            # O_NONBLOCK: opening a pipe without a reader would otherwise wait for ever.
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(status.st_mode):
                raise
            if time.monotonic() > give_up:
                raise OSError(errno.ENXIO, "nobody reads this pipe", str(path)) from None
            time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return open(descriptor, "wb")  # noqa: PTH123 - a descriptor, not a path


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one move."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; a value that JSON lacks (NaN) is an error, not a bad file."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Indented JSON; ValueError for what JSON lacks (NaN)."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """A file whole; OSError if it is a pipe or folder, or has more than `limit` bytes."""
    # O_NONBLOCK: opening a pipe without a writer would otherwise wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > limit:
            size = f"{-(-status.st_size // 2**20)} MB"
            raise OSError(errno.EFBIG, f"{size} is over the limit of {limit >> 20} MB")
        # A limit would be allocated each time.
        return file.read(status.st_size + 1)


def from_json(content: str | bytes) -> Any:
    """The value of JSON as others read it: no NaN and infinity, no number that becomes one, no key
    twice, nothing too deep. ValueError for all that.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key twice in one object")
        return found

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"the number {text[:20]}")
        return value

    try:
        return json.loads(
            content, object_pairs_hook=once, parse_float=finite, parse_constant=finite
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


class Output:
    """`replacing` for a file that the user named with a flag: `with Output("--csv", path) as out`.

    Entering it finds out whether the file can be written, before any work. If nothing is written,
    nothing is replaced. `-` is standard output.

    Raises:
        UsageError: it cannot be written, now or later.
    """

    def __init__(self, flag: str, path: Path):
        self._flag, self._path = flag, path
        self._written = False
        self._stdout = is_stdout(path)
        self._replacing = _appending(sys.stdout) if self._stdout else replacing(path)

    def __enter__(self) -> "Output":
        with self._named():
            self._file = self._replacing.__enter__()
        return self

    def write(self, content: str | bytes) -> None:
        """Adds bytes, or text in UTF-8."""
        self._written = True
        with self._named():
            self._file.write(content.encode() if isinstance(content, str) else content)

    def __exit__(self, *error: Any) -> None:
        if not self._written:
            error = (LookupError, LookupError("nothing was written"), None)
        with self._named():
            self._replacing.__exit__(*error)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._stdout and isinstance(error, BrokenPipeError):
                raise
            raise UsageError(
                f"{self._flag} {self._path}: cannot be written ({error.strerror})"
            ) from error


def write_output(flag: str, path: Path, content: str | bytes) -> None:
    """Writes a file that the user named with `flag`; `UsageError` if it cannot be written."""
    with Output(flag, path) as output:
        output.write(content)


@contextlib.contextmanager
def outputs(named: Mapping[str, Path | None]) -> Iterator[dict[str, Output]]:
    """Opened files by flag, of the flags that were given, for as long as a command works.

    While one of them is standard output, what the command prints goes to stderr. Where there are
    others, the command goes on although whoever reads standard output has seen enough.

    Raises:
        UsageError: two flags name the same file, or one cannot be written.
    """
    given = {flag: path for flag, path in named.items() if path is not None}
    to_stdout = [flag for flag, path in given.items() if is_stdout(path)]
    flag_of: dict[str, str] = {}
    for flag, path in given.items():
        place = str(STDOUT) if flag in to_stdout else os.path.realpath(path)
        if place != str(STDOUT) and is_special(path):
            continue  # a device takes what several flags write
        if (other := flag_of.setdefault(place, flag)) != flag:
            raise UsageError(f"{flag} {path}: {other} is written there")
    with contextlib.ExitStack() as stack:
        if len(to_stdout) < len(given) and sys.stdout is not None:
            stack.enter_context(contextlib.redirect_stdout(_Lasting(sys.stdout)))
        opened = {flag: stack.enter_context(Output(flag, path)) for flag, path in given.items()}
        if to_stdout:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield opened


def is_stdout(path: Path) -> bool:
    """Whether a path means standard output: `-`, or /dev/stdout where that is a file or a pipe."""
    if path == STDOUT:
        return True
    try:
        status, ours = path.stat(), os.fstat(sys.stdout.fileno())
    except (OSError, AttributeError):  # not there yet; stdout is closed, or not of the system
        return False
    return os.path.samestat(status, ours) and not stat.S_ISCHR(ours.st_mode)


def is_special(path: Path) -> bool:
    """Whether it is standard output, or there and no regular file, as a device or a pipe."""
    return path == STDOUT or (path.exists() and not path.is_file())


@contextlib.contextmanager
def _appending(stream: Any) -> Iterator[BinaryIO]:
    """The bytes of a standard stream, behind what it has had."""
    if stream is None:
        raise OSError(errno.EBADF, "it is closed")
    stream.flush()
    yield stream.buffer
    stream.buffer.flush()


class _Lasting:
    """A standard stream that takes what is written, for nobody, once its reader has gone."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> "_Lasting":
        return _Lasting(self._stream.buffer)

    def write(self, content: str | bytes) -> None:
        self._try(self._stream.write, content)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BrokenPipeError:
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, self._stream.fileno())
            os.close(nobody)
