"""Files that are complete or absent, never half-written."""

import json
import os
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one move: a reader, or a crash, meets the old file or the new one."""
    new = path.with_name(f".new-{path.name}")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; a value that JSON lacks (NaN) is an error, not a bad file."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Indented JSON; ValueError for what JSON lacks (NaN)."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_output(flag: str, path: Path, content: str | bytes) -> None:
    """Writes a file that the user named with `flag`.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        write_bytes(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UsageError(f"{flag} {path}: cannot be written ({error.strerror})") from error
