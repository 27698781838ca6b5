"""Copies what an address names (`s3://`, `gs://`, `hf://`, `https://`, ...) into the user's cache.

fsspec reads the addresses. A second start copies only what has changed.
"""

import hashlib
import json
import os
import posixpath
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from jaxgear.cache import user_cache
from jaxgear.errors import DataError
from jaxgear.files import write_json
from jaxgear.paths import address_failure, opened_address
from jaxgear.text import printable, stable_key

_STAMPS = ("ETag", "etag", "md5Hash", "sha256", "LastModified", "mtime", "updated", "last_commit",
           "created")  # fmt: skip


def fetched_file(address: str) -> Path:
    """A copy of the file behind an address.

    Raises:
        UsageError: no such kind of address, or a package for it is missing.
        DataError: it cannot be read.
    """
    path, _, query = address.partition("?")
    parent, name = posixpath.split(path)  # an archive is known by its suffix
    return fetched(address if query else parent, {name: address}) / name


def fetched_any(address: str) -> Path:
    """A copy of the file or the folder behind an address; errors as `fetched_file`."""
    system, path = opened_address(address)
    try:
        is_file = system.isfile(path)
    except Exception as error:
        raise address_failure(address, error) from error
    return fetched_file(address) if is_file else fetched_folder(address)


def fetched_folder(address: str) -> Path:
    """A copy of the folder behind an address, with all files below it; errors as `fetched_file`."""
    system, path = opened_address(address)
    try:
        entries = system.find(path, detail=True)
    except Exception as error:
        raise address_failure(address, error) from error
    if not entries:
        raise DataError(f"{address}: no such folder, or nothing in it")
    start = path.rstrip("/") + "/"
    return _copied(address, system, {e.removeprefix(start): (e, entries[e]) for e in entries})


def fetched(base: str, addresses: Mapping[str, str]) -> Path:
    """A folder with a copy of each address at its name, a path below `base`; as `fetched_file`."""
    system, _ = opened_address(base)
    files = {}
    for name, address in addresses.items():
        _, path = opened_address(address)
        try:
            files[name] = path, system.info(path)
        except Exception as error:
            raise address_failure(address, error) from error
    return _copied(base, system, files, whole=False)


def _copied(
    address: str, system: Any, files: Mapping[str, tuple[str, Any]], whole: bool = True
) -> Path:
    """The folder of copies: `files` are paths and what the file system says of them, by name.

    Args:
        whole: files that are no longer there are removed from the copy.
    """
    key = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
    base = user_cache() or Path(tempfile.mkdtemp(prefix="jaxgear-"))
    place = base / "addresses" / key
    state_file = base / "addresses" / f"{key}.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        before = json.loads(state_file.read_bytes()) if state_file.exists() else {}
    except (OSError, ValueError):
        before = {}
    now = {name: _state(info) for name, (_, info) in files.items()}
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/") or "\0" in name:
            raise DataError(f"{address}: {printable(name)[:200]!r} leads out of it")

    def copy(name: str) -> None:
        path = place / name
        # Without a size or a time nobody knows whether it is the same.
        if before.get(name) == now[name] and None not in now[name] and path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as new:
            system.get_file(files[name][0], os.path.join(new, "file"))  # noqa: PTH118
            os.replace(os.path.join(new, "file"), path)  # noqa: PTH105, PTH118
        copied[name] = now[name]

    copied: dict[str, list[Any]] = {}
    try:
        try:
            with ThreadPoolExecutor(8) as pool:  # mostly waiting
                list(pool.map(copy, files))  # raises the error of a thread
        finally:  # what is here need not be copied again
            write_json(state_file, before | copied)
        if whole:  # also what a copy that was killed has left
            kept = {stable_key(str(place / name))[0] for name in now}
            for path in place.rglob("*"):
                if path.is_file() and stable_key(str(path))[0] not in kept:
                    path.unlink(missing_ok=True)
    except Exception as error:
        raise address_failure(address, error) from error
    return place


def _state(info: Mapping[str, Any]) -> list[Any]:
    """The size and the time or hash of a file, where the file system tells them."""
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name) is not None), None)
    return [info.get("size"), stamp]
