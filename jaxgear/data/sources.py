"""What a person names on a command line (files, folders, patterns) -> paths, and pictures there."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from jaxgear.data.walk import Refused, list_files, stable_key
from jaxgear.errors import DataError, UsageError

_PATTERN = re.compile(r"[*?\[]")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # of two letters or more: C:/ is a drive
_UNSET = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=[/\\]|$)")  # a whole name in a path


def expanded(path: str) -> str:
    """A path in which `~` and variables of the environment are what they stand for.

    For what no shell has expanded: `--data=~/pictures`, a setting in a file.

    Raises:
        UsageError: an address such as s3://bucket, a user or a variable that is not there; unless
            it is the name of a file.
    """
    full = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 - `Path` drops the slashes
    if os.path.lexists(full):
        return full
    if address := _ADDRESS.match(full):
        rest = full[address.end() :]
        raise UsageError(
            f"{address[1]}://{rest}: an address, not a path of this machine; copy from it, or to "
            "it, with its own tools"
        )
    if full.startswith("~"):
        raise UsageError(f"{path}: there is no such user")
    if unset := _UNSET.search(full):
        raise UsageError(f"{path}: the variable {unset[1] or unset[2]} is not set")
    return full


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
