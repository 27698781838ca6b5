"""A folder of pictures, checked and split, as a TensorFlow Datasets set that grows with it.

Pictures are decoded once in their life: by a process each (`staging`), before it is known on which
split they are. What the version before has, and what a run that was killed has left, is taken as it
is. `versions` then writes the shards.
"""

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import PIL

from jaxgear.data.dataset import split_dataset
from jaxgear.data.folder import (
    Folder,
    Listing,
    OnBad,
    Refused,
    assemble,
    class_names,
    list_pictures,
)
from jaxgear.data.images import decode, descriptor
from jaxgear.data.prepare.staging import stage
from jaxgear.data.prepare.workshop import Staged, ToStore, staged
from jaxgear.data.splits import NEAR_DUPLICATES
from jaxgear.data.tfds.shards import NAME, UNFINISHED
from jaxgear.errors import DataError, UsageError
from jaxgear.files import Lock

Tick = Callable[[int, int], None]  # told how many pictures are done, and of how many

_STAGING = ".staging-"


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    on_bad: OnBad = "stop",
    group_by: str = NEAR_DUPLICATES,
    say: Callable[[str], None] = print,
    tick: Tick = lambda done, total: None,
) -> Path:
    """Writes `out/gear/<version>`, for `read_tfds(f"gear@{out}")`; returns that folder.

    A version holds the pictures that the folder holds: what is gone there is in older versions
    only. A run that was killed at any time is gone on with by the next.

    Args:
        root: a data folder.
        size: pictures are stored letterboxed at it, without loss; None: as they are, made portable.
        workers: processes that decode; None: one for each core.
        seed: decides the split, as that of a run does, and so does `group_by` (`groups_of`).
        say: gets one line for everything a user should know.

    Raises:
        DataError: what `open_dataset` refuses; or `out` is being written by another process, or
            cannot be written.
        UsageError: `out` holds a set of another seed, size or grouping, or is inside `root`.
    """
    root, base = Path(root), Path(out) / NAME
    if base.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{out}: is inside {root}, in which nothing is written; choose another")
    listing = list_pictures(root)
    class_names(root, listing)
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(base):
            chosen = {"size": size, "seed": seed, "group_by": group_by}
            before = _versions().last(base, chosen) if any(base.glob("[0-9]*")) else None
            recipe = (
                f"images {decode.VERSION}, looks {descriptor.VERSION}, Pillow {PIL.__version__}"
            )
            place = base / f"{_STAGING}{size or 'whole'}-{re.sub('[ ,]+', '-', recipe)}"
            place.mkdir(exist_ok=True)
            known = {one.sha256: _of_staged(one) for one in staged(place)}
            if known:
                say(f"going on: {len(known)} pictures were decoded before")
            if before is not None and before.metadata["recipe"] == recipe:
                known |= _versions().pictures_of(before)
            with ThreadPoolExecutor(1) as aside:  # TFDS is imported while processes start
                loading = aside.submit(_versions)
                cores = workers or os.cpu_count()
                folder = _decode(root, listing, known, place, size, cores, tick)
            dataset = split_dataset(
                folder, size=size or 128, seed=seed, on_bad=on_bad, group_by=group_by, say=say
            )
            metadata = {"recipe": recipe, **chosen}
            path, words = loading.result().write_version(
                base, before, dataset, known, metadata, cores
            )
            say(f"{path}: {words}")
            for finished in (*base.glob(f"{_STAGING}*"), *base.glob(f"{UNFINISHED}*")):
                shutil.rmtree(finished)
            return path
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None


def _decode(
    root: Path,
    listing: Listing,
    known: dict[str, ToStore],
    place: Path,
    size: int | None,
    workers: int,
    tick: Tick,
) -> Folder:
    """The folder, checked; `known` gets what was not in it."""
    paths = [candidate.path for candidate in listing.candidates]
    checked: list[tuple[str, int, int, bytes] | Refused] = []
    digests = frozenset(map(bytes.fromhex, known))
    for result in stage(root, paths, place, size=size, workers=workers, known=digests):
        if isinstance(result, Staged):
            known.setdefault(result.sha256, _of_staged(result))
            result = result.sha256
        if isinstance(result, str):
            found = known[result]
            result = result, found.height, found.width, found.descriptor
        checked.append(result)
        tick(len(checked), len(paths))
    return assemble(root, listing, checked)


def _versions() -> ModuleType:
    """Imported when it is needed: TFDS takes a quarter of a second."""
    from jaxgear.data.prepare import versions

    return versions


def _of_staged(one: Staged) -> ToStore:
    return ToStore(one.height, one.width, one.descriptor, one.stored, one.length, one.read)


def _locked(base: Path) -> Lock:
    """While it is held no other process writes there."""
    try:
        return Lock(base / ".lock")
    except UsageError as error:
        raise DataError(str(error)) from None
