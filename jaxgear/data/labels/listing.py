"""Lists the pictures of a set, however it is named: a folder, table, archive or address."""

import contextlib
import posixpath
from collections.abc import Iterator
from pathlib import Path

from jaxgear.data.folder import Listing, list_pictures
from jaxgear.data.folder.names import split_of
from jaxgear.data.labels import addresses, archives, tables
from jaxgear.errors import DataError
from jaxgear.paths import expanded, is_address


def list_source(source: str) -> tuple[Path, Listing]:
    """The folder on this machine that holds the pictures of a set, and their listing.

    The same pictures have the same paths, classes and splits, whichever way they are named. What an
    address or an archive holds is copied into the user's cache first.

    Args:
        source: a folder (`list_pictures`), a table (labels/tables.py), a zip or tar of either, or
            the address of one of these (labels/addresses.py).

    Raises:
        DataError: nothing there, or as `list_pictures`, `read_table`, `unpacked`, `fetched_file`.
        UsageError: as `expanded` and `fetched_file`.
    """
    if not is_address(source):
        return _list_local(Path(expanded(source)))
    path = source.partition("?")[0].rstrip("/")
    if archives.is_archive(path):
        root = archives.unpacked(addresses.fetched_file(source))
    elif path.lower().endswith(tables.SUFFIXES):
        rows = tables.read_table(addresses.fetched_file(source))
        return _list_addresses(rows, posixpath.dirname(path))
    else:
        root = addresses.fetched_folder(source)
    with as_named(source, root):
        return _list_local(root)


def _list_local(path: Path) -> tuple[Path, Listing]:
    if path.is_file() and archives.is_archive(path.name):
        path = archives.unpacked(path)
    found = [path]
    if not (path.is_file() and path.name.lower().endswith(tables.SUFFIXES)):
        found = tables.tables_in(path)
        if not found:
            return path, list_pictures(path)
    rows = [
        (table, row)
        for table in found
        for row in tables.read_table(table, split_of(table.parent.name) or None)
    ]
    if any(is_address(row.picture) for _, row in rows):
        return _list_addresses([row for _, row in rows], "")
    placed = tables.by_place((tables.local_place(table, row.picture), row) for table, row in rows)
    folder = path if path.is_dir() else path.parent
    base = tables.base_of(placed, folder.absolute().as_posix())
    start = base.rstrip("/") + "/"
    listing = tables.listing_of(
        Path(base), {place.removeprefix(start): row for place, row in placed.items()}
    )
    if path.is_dir():
        listing.tables = [table.relative_to(path).as_posix() for table in found]
    return Path(base), listing


def _list_addresses(rows: list[tables.Row], parent: str) -> tuple[Path, Listing]:
    """A listing of pictures that a table names by address, or relative to the address `parent`."""
    placed = tables.by_place(
        (row.picture if is_address(row.picture) or not parent
         else posixpath.normpath(posixpath.join(parent, row.picture)).replace(":/", "://", 1), row)
        for row in rows
    )  # fmt: skip
    base = tables.base_of(placed, parent or "/")
    start = base.rstrip("/") + "/"
    named = {place.removeprefix(start): place for place in placed}
    root = addresses.fetched(base, named)
    return root, tables.listing_of(root, {name: placed[named[name]] for name in named})


@contextlib.contextmanager
def as_named(source: str, root: Path) -> Iterator[None]:
    """Errors about a copy in the cache name what the user named."""
    try:
        yield
    except DataError as error:
        if str(root) not in str(error) or root == Path(source):
            raise
        raise DataError(str(error).replace(str(root), source)) from error
