"""File names that can be printed, encoded and sorted; rows as CSV."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def stable_key(path: str) -> tuple[str, str]:
    """A sort key that is the same on every file system, whichever Unicode form it stores."""
    return unicodedata.normalize("NFC", path), path


def text_of(path: str) -> str:
    """A name that can be encoded: bytes that are not UTF-8 become `\\udcff`."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(path: str) -> str:
    """`text_of` on one line, with control characters escaped: a tab becomes `\\t`."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text_of(path))


def few(names: Iterable[str], most: int = 3, total: int | None = None) -> str:
    """The first `most` of `names` in printable form, and the number of the others of `total`.

    None: `names` are all.
    """
    names = list(map(printable, names))
    more = (len(names) if total is None else total) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """CSV of rows, the header first."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
