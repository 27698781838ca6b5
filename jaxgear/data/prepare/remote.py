"""Prepares a set at an address (`s3://bucket/sets`), where fsspec writes.

The set is prepared in the user's cache, and a version then goes to the address with
`dataset_info.json` last, by which readers find it: a killed run leaves files that nobody reads.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxgear.cache import user_cache
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.tfds.sets import INFO, newest_at
from jaxgear.data.tfds.shards import NAME, SUMS, UNFINISHED
from jaxgear.errors import UsageError
from jaxgear.outputs import check_address
from jaxgear.paths import address_failure


def prepare_at(
    root: str | os.PathLike[str],
    address: str,
    *,
    say: Callable[[str], None] = print,
    **options: Any,
) -> str:
    """`prepare` for an address; returns that of the version.

    The newest version there is copied to the cache first, unless the cache has it, so that its
    images are not decoded again. No lock: one process at a time may prepare a set at an address.

    Args:
        options: as `prepare`. With `cluster` the nodes must share the user's cache.

    Raises:
        UsageError: nothing can be written there.
        DataError: as `prepare`, or the address fails later.
    """
    base = f"{address.rstrip('/')}/{NAME}"
    try:
        system, path = check_address(base)
    except OSError as error:
        raise UsageError(f"{address}: cannot be written ({error.strerror})") from error
    cache = user_cache() or Path(tempfile.mkdtemp(prefix="jaxgear-"))
    out = cache / "prepared" / hashlib.sha256(base.encode()).hexdigest()[:16]
    newest = newest_at(base)
    try:
        if newest is not None:
            _copy(system, f"{path}/{newest}", out / NAME / newest)
        version = prepare(
            root, out, say=lambda line: say(line.replace(str(out), address.rstrip("/"))), **options
        )
        if version.name != newest:
            _send(system, version, f"{path}/{version.name}")
    except OSError as error:
        raise address_failure(address, error) from error
    return f"{base}/{version.name}"


def _copy(system: Any, there: str, here: Path) -> None:
    """Copies a version from an address, unless it is here already."""
    sums = here / SUMS
    if sums.is_file() and sums.read_bytes() == system.cat_file(f"{there}/{SUMS}"):
        return
    new = here.with_name(f"{UNFINISHED}{here.name}")
    for place in (new, here):  # left by a killed run; written by another machine
        shutil.rmtree(place, ignore_errors=True)
    for path in system.find(there):
        copy = new / path.removeprefix(f"{there}/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(path, str(copy))
    new.rename(here)


def _send(system: Any, version: Path, there: str) -> None:
    """Sends a version to an address; `INFO`, by which it is found, last."""
    for folder in {"", *(path.name for path in version.iterdir() if path.is_dir())}:
        with contextlib.suppress(Exception):  # object stores have no folders; sending says more
            system.makedirs(f"{there}/{folder}".rstrip("/"), exist_ok=True)
    names = [path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()]

    def send(name: str) -> None:
        system.put_file(str(version / name), f"{there}/{name}")

    with ThreadPoolExecutor(8) as pool:  # mostly waiting
        list(pool.map(send, sorted(set(names) - {INFO})))  # raises the error of a thread
    send(INFO)
