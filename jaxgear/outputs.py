"""Outputs that a user names with a flag: a file, an address, a device, a pipe, or `-` for standard
output.
"""

import contextlib
import errno
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxgear.errors import UsageError, first_line
from jaxgear.files import replacing
from jaxgear.paths import is_address, opened_address

STDOUT = Path("-")


class Output:
    """`replacing` for a file that a user names with a flag: `with Output("--csv", path) as out`.

    Entering checks that the file can be written, before any work. If nothing is written, the old
    file stays. `-` is standard output. What goes to an address (`s3://bucket/rows.csv`) is sent
    whole on leaving.

    Raises:
        UsageError: it cannot be written, on entering or later.
    """

    def __init__(self, flag: str, path: Path | str):
        self._flag, self._path = flag, path
        self._written = False
        self._stdout = is_stdout(path)
        if is_address(path):
            self._replacing = _sending(path)
        else:
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


def to_stderr(line: str) -> None:
    """Prints a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def outputs(named: Mapping[str, Path | str | None]) -> Iterator[dict[str, Output]]:
    """Opens the outputs of a command by flag; skips flags with None.

    If one of them is standard output, everything that the command prints goes to stderr. If another
    one is not, the command continues even after the reader of standard output has gone.

    Raises:
        UsageError: two flags name the same file, or one cannot be written.
    """
    paths = {flag: path for flag, path in named.items() if path is not None}
    to_stdout = [flag for flag, path in paths.items() if is_stdout(path)]
    flag_of: dict[str, str] = {}
    for flag, path in paths.items():
        place = str(STDOUT) if flag in to_stdout else path
        if isinstance(place, Path):
            place = os.path.realpath(path)
        if isinstance(path, Path) and place != str(STDOUT) and is_special(path):
            continue  # several flags may write to one device
        if (other := flag_of.setdefault(place, flag)) != flag:
            raise UsageError(f"{flag} {path}: {other} is written there")
    with contextlib.ExitStack() as stack:
        if len(to_stdout) < len(paths) and sys.stdout is not None:
            stack.enter_context(contextlib.redirect_stdout(_Lasting(sys.stdout)))
        opened = {flag: stack.enter_context(Output(flag, path)) for flag, path in paths.items()}
        if to_stdout:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield opened


def is_stdout(path: Path | str) -> bool:
    """Whether a path means standard output: `-`, or /dev/stdout where that is a file or a pipe."""
    if path == STDOUT:
        return True
    if is_address(path):
        return False
    try:
        status, ours = path.stat(), os.fstat(sys.stdout.fileno())
    except (OSError, AttributeError):  # no such file; stdout is closed or has no descriptor
        return False
    return os.path.samestat(status, ours) and not stat.S_ISCHR(ours.st_mode)


def is_special(path: Path) -> bool:
    """Whether a path is standard output, or exists and is not a file, such as a device or pipe."""
    return path == STDOUT or (path.exists() and not path.is_file())


def check_address(address: str) -> tuple[Any, str]:
    """Writes an empty file beside `address` and removes it.

    Returns its file system (fsspec) and its path in it. OSError: it cannot be written.
    """
    system, path = opened_address(address)
    probe = f"{path.rstrip('/')}.{secrets.token_hex(4)}.empty"
    with _as_os_error():
        system.pipe_file(probe, b"")
    with contextlib.suppress(Exception):  # some accounts may write but not remove
        system.rm_file(probe)
    return system, path


@contextlib.contextmanager
def _sending(address: str) -> Iterator[BinaryIO]:
    """A new file that goes to an address whole on leaving; after an exception nothing is sent."""
    system, path = check_address(address)
    with tempfile.NamedTemporaryFile(prefix="jaxgear-") as file:
        yield file
        file.flush()
        with _as_os_error():
            system.put_file(file.name, path)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Errors of a file system of fsspec, which may be of any class, as OSErrors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise OSError(errno.EIO, first_line(error)) from error


@contextlib.contextmanager
def _appending(stream: Any) -> Iterator[BinaryIO]:
    """The binary buffer of a standard stream, flushed before and after."""
    if stream is None:
        raise OSError(errno.EBADF, "it is closed")
    stream.flush()
    yield stream.buffer
    stream.buffer.flush()


class _Lasting:
    """A standard stream that discards what is written once its reader has gone."""

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
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())
            os.close(devnull)
