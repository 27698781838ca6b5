"""Names of files as they can be printed, encoded and sorted."""

import re
import unicodedata

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def stable_key(path: str) -> tuple[str, str]:
    """Sorts paths alike on every file system, whichever Unicode form it stores names in."""
    return unicodedata.normalize("NFC", path), path


def text_of(path: str) -> str:
    """A name that can be encoded: bytes of a name that are no UTF-8 become `\\udcff`."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(path: str) -> str:
    """`text_of` on one line and without what moves a terminal's cursor: a tab becomes `\\t`."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text_of(path))
