"""The columns of a version of a prepared set: one `.npy` file each, mapped into memory.

Rows are in the order of the shards. So a process that opens a set of ten million images holds only
what it looks at, and processes share it.
"""

import hashlib
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, Shaped, UInt8

from jaxgear.data.folder import (
    HASHED,
    Column,
    Records,
    Table,
    digests,
    group_numbers,
    group_text,
    narrow,
    octets,
    path_at,
)
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.parts import damaged, npy_header, unlike
from jaxgear.data.tfds.shards import COLUMNS, INDEX, SUMS, Shard, text_of
from jaxgear.text import stable_key

_SMALL = 2**20  # bytes of a column that is read, not mapped: it takes a third of the time
BLOCK = 2**22  # bytes that have a sum of their own

# Type and shape of a row; `text` and `names` have no rows.
_ROWS = {
    "order": ("uint", ()),
    "by_split": ("uint", ()),
    "starts": ("uint", ()),
    "sha256": ("uint8", (32,)),
    "stored": ("uint8", (32,)),
    "label": ("int32", ()),
    "height": ("int32", ()),
    "width": ("int32", ()),
    "split": ("uint8", ()),
    "group": ("uint64", ()),
}


def write_columns(
    folder: Path, shards: Iterable[Shard], places: Int[np.ndarray, " N"] | None = None
) -> None:
    """Writes the columns of all records of a version.

    Args:
        shards: in the order in which `read_tables` reads them: splits sorted by name.
        places: of each record in that order, its place among all sorted by path; None: unknown.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*_ROWS, "text")}
    names: dict[str, int] = {}
    size = 0  # of the text
    for shard in shards:
        records = Records.of(shard.records)
        table, rows = records.table, records.rows
        text, starts = table.text_of(rows)
        for name, column in {
            "text": text,
            "starts": size + starts.astype(np.uint64),
            "sha256": octets(records.sha256),
            "stored": octets(shard.stored),
            "label": table.label[rows],
            "height": table.height[rows],
            "width": table.width[rows],
            "split": np.full(len(rows), ALL.index(shard.split), np.uint8),
            "group": group_numbers(records.groups, names),
        }.items():
            parts[name].append(column)
        size += len(text)
    columns = {name: np.concatenate(own) for name, own in parts.items() if own}
    columns["starts"] = narrow(columns["starts"])
    order = _order(columns["text"], columns["starts"]) if places is None else np.argsort(places)
    columns["order"] = order = narrow(order)
    columns["by_split"] = order[np.argsort(columns["split"][order], kind="stable")]
    columns["names"] = text_of(["", *names, ""])
    (folder / COLUMNS).mkdir()
    for name, column in columns.items():
        np.save(column_file(folder, name), column)


def _order(
    text: UInt8[np.ndarray, " T"], starts: Integer[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """The rows sorted by path."""
    keys = [stable_key(path_at(text, starts, row)) for row in range(len(starts))]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def read_columns(
    folder: Path,
    sums: Mapping[str, str],
    count: int,
    classes: int,
    pool: Executor,
    blocks: Mapping[str, UInt8[np.ndarray, "n 32"]],
    share: tuple[int, int],
) -> tuple[dict[str, Shaped[np.ndarray, "..."]], list[str]]:
    """The columns of a version, mapped into memory, and the names of groups.

    Args:
        blocks: sha256 of the blocks of each column; empty: of older sets, which `sums` cover.
        share: (K, N): checks the K-th of N equal parts of each column. Other hosts check the rest.

    Raises:
        DataError: a file is missing or damaged, or not of `count` rows and `classes` classes.
    """
    read = partial(_read_column, folder, sums, blocks, share)
    names = [name for name in (*_ROWS, "text", "names") if blocks or name != "by_split"]
    columns = dict(zip(names, pool.map(read, names), strict=True))
    if any(len(columns[name]) != count for name in names[:-2]):
        raise unlike(folder)
    name = "names"
    try:
        groups = columns[name].tobytes().decode().split("\0")[1:-1]
        limits = {"order": count, "split": len(ALL), "group": HASHED + len(groups)}
        limits |= {"label": classes, "starts": len(columns["text"])}
        for name, limit in (limits | ({"by_split": count} if blocks else {})).items():
            own = columns[name][part_of(count, share)]
            if len(own) and (own.min() < 0 or own.max() >= limit):
                raise ValueError("a label is not a class" if name == "label" else "out of range")
        name = "starts"
        own = columns[name][part_of(count, share)]
        if not (own[1:] > own[:-1]).all():
            raise ValueError("not ascending")
    except ValueError as error:
        raise damaged(column_file(folder, name), error, folder) from None
    return columns, groups


def column_file(folder: Path, name: str) -> Path:
    """The file of a column of the version in `folder`."""
    return folder / COLUMNS / f"{name}.npy"


def part_of(count: int, share: tuple[int, int]) -> slice:
    """The rows of `count` that host K of N checks, for a share (K, N)."""
    number, shares = share
    return slice(count * number // shares, count * (number + 1) // shares)


def block_sums(path: Path) -> UInt8[np.ndarray, "n 32"]:
    """The sha256 of each block of a file."""
    with path.open("rb") as file:
        sums = b"".join(
            hashlib.sha256(block).digest() for block in iter(partial(file.read, BLOCK), b"")
        )
    return np.frombuffer(sums, np.uint8).reshape(-1, 32)


def _check_blocks(path: Path, sums: UInt8[np.ndarray, "n 32"], share: tuple[int, int]) -> None:
    own = part_of(len(sums), share)
    with path.open("rb") as file:
        if len(sums) != -(-os.fstat(file.fileno()).st_size // BLOCK):
            raise ValueError("another length")
        file.seek(own.start * BLOCK)
        for digest in sums[own]:
            if hashlib.sha256(file.read(BLOCK)).digest() != digest.tobytes():
                raise ValueError(f"does not match {INDEX}")


def _read_column(
    folder: Path,
    sums: Mapping[str, str],
    blocks: Mapping[str, UInt8[np.ndarray, "n 32"]],
    share: tuple[int, int],
    name: str,
) -> Shaped[np.ndarray, "..."]:
    path = column_file(folder, name)
    try:
        if blocks and path.stat().st_size > _SMALL:
            _check_blocks(path, blocks[name], share)
            return read_column(path)
        return read_column(path, sums.get(path.relative_to(folder).as_posix(), ""))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise damaged(path, error, folder) from None


def read_column(path: Path, digest: str | None = None) -> Shaped[np.ndarray, "..."]:
    """The column in a file, mapped into memory. None: it was checked before.

    Raises:
        OSError, ValueError, struct.error: the file has another sha256 (hex) than `digest`, or no
            such column.
    """
    kind, shape = _ROWS.get(path.stem, ("uint8", ()))
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size <= _SMALL
        data = file.read(_SMALL if whole else 4096)
        file.seek(0)
        if digest is not None:
            found = hashlib.sha256(data) if whole else hashlib.file_digest(file, "sha256")
            if found.hexdigest() != digest:
                raise ValueError(f"does not match {SUMS}")
    dtype, own, offset = npy_header(data)
    if not dtype.name.startswith(kind) or own[1:] != shape:
        raise ValueError(f"not {kind} {list(shape)}")
    if whole:
        return np.frombuffer(data, dtype, math.prod(own), offset).reshape(own)
    # As a plain array, which is faster to index.
    return np.asarray(np.memmap(path, dtype, "r", offset, own))


def table_of_columns(
    columns: Mapping[str, Shaped[np.ndarray, "..."]],
    names: Sequence[str],
    describe: Callable[[int], bytes],
) -> Table:
    """A table of arrays in the order of the shards; `names` of groups that are no hash."""
    return Table(
        text=columns["text"],
        starts=columns["starts"],
        sha256=digests(columns["sha256"]),
        label=columns["label"],
        split=Column(columns["split"], ALL.__getitem__),
        height=columns["height"],
        width=columns["width"],
        group=Column(columns["group"], partial(group_text, names)),
        describe=describe,
    )
