"""A table of labels as a data set: CSV or Parquet, one row for each picture.

Columns, in any order and case: the picture (`path`, `file_name`, `file`, `address`, `url` or
`image`), its class (`label`, `class` or `category`), and perhaps its `split` (train, val, test or
another spelling). Hugging Face's imagefolder calls its table `metadata.csv`, at the top or in each
split's folder. Paths count from the table's folder.
"""

import contextlib
import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxgear.data.folder import Candidate, Listing, Refused, check_names
from jaxgear.data.folder.names import split_of
from jaxgear.data.labels.corrections import label_fault
from jaxgear.errors import DataError, first_line
from jaxgear.files import read_regular
from jaxgear.text import printable, stable_key

SUFFIXES = (".csv", ".tsv", ".parquet")
# Tables that speak for the folder they lie in.
IN_FOLDER = ("labels.csv", "labels.parquet", "metadata.csv", "metadata.parquet")
MAX_BYTES = 2**32
_PICTURE = ("path", "file_name", "filename", "file", "address", "url", "image")
_LABEL = ("label", "class", "category")
_SPLIT = ("split", "subset")


class Row(NamedTuple):
    """A row of a table."""

    where: str  # the table and line, for messages
    picture: str  # a path or an address
    label: str
    split: str | None  # train, val or test


def tables_in(folder: Path) -> list[Path]:
    """The tables that name the pictures of a folder: its own, or one in each folder of a split.

    A table without a column of labels names nothing: captions, for example.
    """
    found = [folder / name for name in IN_FOLDER if (folder / name).is_file()]
    if not found and folder.is_dir():
        found = [
            below / name
            for below in sorted(folder.iterdir(), key=lambda path: stable_key(path.name))
            if below.is_dir() and split_of(below.name)
            for name in IN_FOLDER
            if (below / name).is_file()
        ]
    return [table for table in found if _column(_columns(table), _LABEL)]


def read_table(table: Path, split: str | None = None) -> list[Row]:
    """The rows of a table; `split` is that of rows that name none.

    Raises:
        DataError: it cannot be read, lacks a column, or a row has a label or split that cannot be
            used; with the line.
    """
    rows = []
    columns = _columns(table)
    picture, label = _column(columns, _PICTURE), _column(columns, _LABEL)
    if not picture or not label:
        missing = f"{_PICTURE[0]} (or {_PICTURE[1]})" if not picture else _LABEL[0]
        raise DataError(f"{table}: has no column {missing}, only {', '.join(columns)[:300]}")
    split_column = _column(columns, _SPLIT)
    for where, cells in _cells(table):
        name = unicodedata.normalize("NFC", cells[label].strip())
        own = split
        if split_column and (text := cells[split_column].strip()):
            own = split_of(text)
            if not own:
                raise DataError(f"{where}: split {printable(text)!r}, expected train, val or test")
        if not cells[picture].strip():
            raise DataError(f"{where}: names no picture")
        if name and (fault := label_fault(name)):
            raise DataError(f"{where}: {fault}")
        rows.append(Row(where, cells[picture].strip(), name, own))
    if not rows:
        raise DataError(f"{table}: has no rows")
    return rows


def base_of(places: Iterable[str], folder: str) -> str:
    """The folder from which paths of records count: `folder` if all `places` lie in it, else the
    deepest that all lie in. Places are absolute POSIX paths or addresses.

    Raises:
        DataError: places of several kinds.
    """
    places = set(places)
    if all(place.startswith(folder.rstrip("/") + "/") for place in places):
        return folder
    kinds = {place[: place.find("://") + 3] if "://" in place else "" for place in places}
    if len(kinds) > 1:
        kinds = ", ".join(sorted(kind or "files" for kind in kinds))
        raise DataError(
            f"{folder}: a table may name pictures of one kind of place; this one names {kinds}"
        )
    kind = kinds.pop()
    folders = {posixpath.dirname(place.removeprefix(kind)) for place in places}
    return kind + posixpath.commonpath(folders)


def listing_of(root: Path, rows: Mapping[str, Row]) -> Listing:
    """A listing of rows by path relative to `root`. A row without a label is refused.

    Raises:
        DataError: class names that differ only in case.
    """
    listing = Listing()
    for path in sorted(rows, key=stable_key):
        row = rows[path]
        if not row.label:
            listing.refused.append(Refused(path, "no label"))
            continue
        listing.classes.add(row.label)
        listing.candidates.append(Candidate(path, row.label, row.split))
    check_names(root, listing)
    return listing


def by_place(rows: Iterable[tuple[str, Row]]) -> dict[str, Row]:
    """Rows by the place of their picture; a picture may be named twice if the rows agree.

    Raises:
        DataError: two rows give one picture different labels or splits.
    """
    places: dict[str, Row] = {}
    for place, row in rows:
        before = places.setdefault(place, row)
        if (before.label, before.split) != (row.label, row.split):
            raise DataError(
                f"{row.where}: {printable(row.picture)} is {_described(row)} here and "
                f"{_described(before)} in {before.where}"
            )
    return places


def _described(row: Row) -> str:
    return (row.label or "without a label") + (f" ({row.split})" if row.split else "")


def local_place(table: Path, picture: str) -> str:
    """The absolute path of a picture that a table names, POSIX, without `.` and `..`."""
    path = os.path.normpath(table.parent.absolute() / os.path.expanduser(picture))  # noqa: PTH111
    return Path(path).as_posix()


def _column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of `names` that is a column, as the table spells it."""
    spelled = {column.strip().casefold(): column for column in columns}
    return next((spelled[name] for name in names if name in spelled), None)


def _columns(table: Path) -> list[str]:
    if table.suffix.lower() == ".parquet":
        import pyarrow.parquet

        with _named(table):
            return list(pyarrow.parquet.read_schema(table).names)
    text = _text(table)
    with _named(table):
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)), [])


def _cells(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the place of each row, for messages, and its cells as text by column."""
    if table.suffix.lower() == ".parquet":
        import pyarrow.parquet

        with _named(table):
            columns = pyarrow.parquet.read_schema(table).names
            wanted = {_column(columns, names) for names in (_PICTURE, _LABEL, _SPLIT)}
            read = pyarrow.parquet.read_table(table, columns=sorted(wanted - {None}))
            rows = read.to_pylist()
        for number, row in enumerate(rows, 1):
            where = f"{table}, row {number}"
            if any(isinstance(value, dict | list | bytes) for value in row.values()):
                raise DataError(f"{where}: expected text; a table names pictures by their paths")
            yield where, {k: "" if value is None else str(value) for k, value in row.items()}
        return
    text = _text(table)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), restval="")
    with _named(table):
        for row in reader:
            yield f"{table}, line {reader.line_num}", row


def _text(table: Path) -> str:
    with _named(table):
        return read_regular(table, MAX_BYTES).decode("utf-8-sig")


def _delimiter(text: str) -> str:
    """Comma, or what spreadsheets write in its place: semicolon or tab."""
    return max(",;\t", key=text.partition("\n")[0].count)


@contextlib.contextmanager
def _named(table: Path) -> Iterator[None]:
    """Turns an error of reading a table into a DataError that names it."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        reason = first_line(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, UnicodeDecodeError):
            reason = "not UTF-8"
        raise DataError(f"{table}: cannot be read as a table ({reason})") from error
