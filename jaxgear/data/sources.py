"""What a person names on a command line (files, folders, patterns) -> paths of pictures."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from jaxgear.data.paths import expanded
from jaxgear.data.walk import Refused, list_files, stable_key
from jaxgear.errors import DataError

_PATTERN = re.compile(r"[*?\[]")


def find_pictures(sources: Iterable[str | os.PathLike[str]]) -> list[Path | Refused]:
    """Files as named, every visible file below folders, and what patterns match (`**` too).

    A path that is met again is left out. A file that is not there stays in the list: whoever opens
    it says so, and the others are not lost for it. In the order of `sources`, and below a folder or
    pattern in that of `stable_key`.

    Raises:
        DataError: a folder without files, or a pattern that nothing matches.
        UsageError: as `expanded`.
    """
    found: dict[str, Path | Refused] = {}
    for source in map(expanded, map(os.fspath, sources)):
        here = list(_expand(source))
        if not here:
            what = "no pictures in this folder" if _is_folder(source) else "matches no file"
            raise DataError(f"{source}: {what}; name pictures, or folders of them")
        for one in here:
            path = one.path if isinstance(one, Refused) else one
            found.setdefault(os.path.normpath(Path(path).absolute()), one)
    return list(found.values())


def _expand(source: str) -> Iterable[Path | Refused]:
    path = Path(source)
    if _is_folder(source):
        files, refused = list_files(path)
        yield from (path / name for name in files)
        yield from (Refused(str(path / one.path), one.reason) for one in refused)
    elif os.path.lexists(source) or not _PATTERN.search(source):
        yield path
    else:
        for match in sorted(glob.glob(source, recursive=True), key=stable_key):  # noqa: PTH207
            yield from _expand(match)


def _is_folder(path: str) -> bool:
    """False also for what may not be looked at (`Path.is_dir` raises): whoever opens it says so."""
    return os.path.isdir(path)  # noqa: PTH112
