"""Prepares a folder of images, checked and split, as a TensorFlow Datasets set.

Each image is decoded only once, by worker processes (`staging`), before its split is known. Images
from the previous version, or from a killed run, are reused. `versions` then writes the shards.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxgear.cluster import Cluster
from jaxgear.data.dataset import split_dataset
from jaxgear.data.folder import Folder, Listing, Refused, class_names, folder_of
from jaxgear.data.labels import list_source
from jaxgear.data.prepare import parts
from jaxgear.data.prepare.decoding.images import Images
from jaxgear.data.prepare.decoding.staging import stage
from jaxgear.data.prepare.decoding.workshop import Staged, staged
from jaxgear.data.prepare.writing import writers
from jaxgear.data.splits import NEAR_DUPLICATES, OnBad, require_clean
from jaxgear.data.tfds.shards import NAME, UNFINISHED
from jaxgear.errors import DataError, UsageError
from jaxgear.files import Lock
from jaxgear.text import printable

_NONE = "00" * 32  # in place of a hash
Tick = Callable[[int, int], None]  # called with the numbers of finished and of all images


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    on_bad: OnBad = "stop",
    group_by: str = NEAR_DUPLICATES,
    join: bool = False,
    cluster: Cluster | None = None,
    say: Callable[[str], None] = print,
    tick: Tick = lambda done, total: None,
) -> Path:
    """Writes `out/gear/<version>` for `read_tfds(f"gear@{out}")`, and returns that folder.

    A version holds the images that are in the folder now; deleted images stay in older versions. If
    a run is killed, the next one continues it.

    Args:
        root: a data folder, or as `list_source` takes.
        size: images are stored letterboxed at this size, lossless; None: at full size, made
            portable (`workshop.portable`).
        workers: processes that decode; None: one per core.
        seed: decides the split together with `group_by` (`groups_of`), as in a training run.
        cluster: whose nodes decode, find near-duplicates and write, in place of `workers`.
        join: take what `prepare_part` decoded, and read no image of `root`.
        say: gets one line for each thing that a user should know.

    Raises:
        DataError: a reason of `open_dataset`, or `out` is not writable, or another process is
            writing to it.
        UsageError: `out` holds a set of another seed, size or grouping, or is inside `root`.
    """
    base, root, listing = _opened(root, out)
    try:
        with _locked(base), contextlib.ExitStack() as stack:
            chosen = {"size": size, "seed": seed, "group_by": group_by}
            before, images, recipe, place = _begun(base, "", chosen, say)
            cores = workers or os.cpu_count()
            importer = stack.enter_context(ThreadPoolExecutor(1))
            loading = importer.submit(_versions)  # while processes start
            if cores == 1:  # this process decodes, and TFDS breaks imports during its own
                loading.result()
            paths = [candidate.path for candidate in listing.candidates]
            if join:
                results = parts.joined(place, paths, images)
            else:
                results = _decode(root, paths, images, place, size, cores, cluster)
            folder = _checked(root, listing, results, images, tick)
            del listing, paths  # objects, which take more memory than all columns
            each = map  # sending the images of the version before costs more than it gains
            if before is None:
                each = cluster.map if cluster else stack.enter_context(writers(images, cores))
            if join:
                folder = parts.grouped(require_clean(folder, on_bad), place)
            elif cluster is not None:
                folder = parts.grouped_on(cluster, require_clean(folder, on_bad), place)
            dataset = split_dataset(
                folder, size=size or 128, seed=seed, on_bad=on_bad, group_by=group_by, say=say
            )
            metadata = {"recipe": recipe, **chosen}
            path, summary = loading.result().write_version(
                base, before, dataset, images, metadata, each
            )
            say(f"{path}: {summary}")
            for finished in base.glob(f"{parts.STAGING}*"):
                parts.remove(finished)
            for unfinished in base.glob(f"{UNFINISHED}*"):
                shutil.rmtree(unfinished)
            return path
    except OSError as error:
        raise _not_written(out, error) from None


def prepare_part(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    part: int,
    count: int,
    *,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    group_by: str = NEAR_DUPLICATES,
    say: Callable[[str], None] = print,
    tick: Tick = lambda done, total: None,
) -> Path:
    """Decodes part `part` (from 1) of `count` of a folder, for `prepare(..., join=True)`.

    Machines that share `root` and `out` can do so at the same time. If one is killed, call it again
    for the same part: it continues. Returns the folder of the part; arguments and errors are those
    of `prepare`.
    """
    base, root, listing = _opened(root, out)
    name = parts.name_of(part, count)
    try:
        chosen = {"size": size, "seed": seed, "group_by": group_by}
        _, images, _, place = _begun(base, name, chosen, say)
        with _locked(place):
            paths = parts.paths_of([c.path for c in listing.candidates], part, count)
            decoding = _decode(root, paths, images, place, size, workers or os.cpu_count())
            results = []
            for result in decoding:
                results.append(result)
                tick(len(results), len(paths))
            parts.write_images(place, count, zip(paths, results, strict=True), images)
            say(f"part {part} of {count}: {len(results)} pictures")
            return place
    except OSError as error:
        raise _not_written(out, error) from None


def _opened(
    root: str | os.PathLike[str], out: str | os.PathLike[str]
) -> tuple[Path, Path, Listing]:
    """The folder of the set, which exists now; the folder of the images, and its listing."""
    base = Path(out) / NAME
    root, listing = list_source(os.fspath(root))
    if base.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{out}: is inside the data folder {root}; choose a place outside")
    class_names(root, listing)
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(out, error) from None
    return base, root, listing


def _begun(
    base: Path, part: str, chosen: dict[str, Any], say: Callable[[str], None]
) -> tuple[Any, Images, str, Path]:
    """The version before, the images that need no decoding, the recipe, and where to stage others.

    `part` is a folder there, or "" for all of it.
    """
    before = _versions().last(base, chosen) if any(base.glob("[0-9]*")) else None
    recipe = parts.recipe()
    place = parts.staging(base, chosen["size"]) / part
    place.mkdir(parents=True, exist_ok=True)
    images = Images()
    for entry in staged(place):
        images.add(entry)
    if len(images):
        say(f"continuing an earlier run: {len(images.sha256())} pictures are already decoded")
    if before is not None and before.metadata["recipe"] == recipe:
        images.add_version(before, _versions().rows_of(before))
    return before, images, recipe, place


def _decode(
    root: Path,
    paths: Sequence[str],
    images: Images,
    place: Path,
    size: int | None,
    workers: int,
    cluster: Cluster | None = None,
) -> Iterator[str | Refused]:
    """The sha256 (hex) or refusal of each path; adds newly decoded images to `images`."""
    options = {"size": size, "workers": workers, "known": images.sha256(), "cluster": cluster}
    for result in stage(root, paths, place, **options):
        if isinstance(result, Staged):
            images.add(result)
            result = result.sha256
        yield result


def _checked(
    root: Path,
    listing: Listing,
    results: Iterable[str | Refused],
    images: Images,
    tick: Tick,
) -> Folder:
    """The checked folder, of the result for each candidate.

    Raises:
        DataError: a result is the hash of an image that is nowhere.
    """
    octets, refused = bytearray(), []
    for number, result in enumerate(results, 1):
        if isinstance(result, Refused):
            refused.append(result)
            result = _NONE
        octets += bytes.fromhex(result)
        tick(number, len(listing.candidates))
    digests = np.frombuffer(octets, "S32")
    rows = images.find(digests)  # -1: refused
    if len(lost := np.flatnonzero((rows < 0) & (digests != b""))):
        first = printable(listing.candidates[lost[0]].path)
        raise DataError(f"{first}: what was decoded of it is lost; start again to continue")
    classes = class_names(root, listing)
    records = images.records(listing.candidates, classes, rows)
    return folder_of(root, listing, classes, records, refused)


def _not_written(out: str | os.PathLike[str], error: OSError) -> DataError:
    return DataError(f"{out}: cannot be written: {error.strerror or error}")


def _versions() -> ModuleType:
    """The module `versions`, imported when needed: TFDS takes a quarter of a second."""
    from jaxgear.data.prepare import versions

    return versions


def _locked(base: Path) -> Lock:
    """A lock that keeps other processes from writing to `base`."""
    try:
        return Lock(base / ".lock")
    except UsageError as error:
        raise DataError(str(error)) from None
