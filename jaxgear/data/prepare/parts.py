"""Parts of a folder that several machines decode, each into a folder of its own.

`OUT/gear/.staging-.../part-3-of-16` has the staged images of a part. When all of its images are
decoded, `images.json` there says which image has which file, or why it was refused. Near-duplicates
are found in stages over files (data/splits/stages.py): a part signs its images, `compare_part`
writes `pairs.npz` for a range of keys, and `grouped` makes groups of the pairs. `grouped_on` has a
cluster do all of it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from jaxgear.cluster import Cluster
from jaxgear.data.folder import Folder, Refused, descriptors_of, grouped_by_hash, sortable
from jaxgear.data.images import decode, descriptor
from jaxgear.data.prepare.decoding.images import Images
from jaxgear.data.splits import stages
from jaxgear.data.tfds.shards import NAME
from jaxgear.errors import UsageError
from jaxgear.files import Lock, replacing, write_json
from jaxgear.text import few, printable, stable_key

STAGING = ".staging-"
JOB = 100_000  # images of a job that finds near-duplicates on a cluster
_IMAGES, _PAIRS = "images.json", "pairs.npz"


def recipe() -> str:
    """The versions of what images are decoded with."""
    return f"images {decode.VERSION}, looks {descriptor.VERSION}, Pillow {PIL.__version__}"


def staging(base: Path, size: int | None) -> Path:
    """Where images of a size are staged for the set in the folder `base`."""
    return base / f"{STAGING}{size or 'whole'}-{re.sub('[ ,]+', '-', recipe())}"


def remove(staged: Path) -> None:
    """Removes a folder of staged images, unless another machine decodes a part of it now."""
    with contextlib.suppress(UsageError), contextlib.ExitStack() as locks:
        for part in staged.glob("part-*"):
            locks.enter_context(Lock(part / ".lock"))
        shutil.rmtree(staged)


def paths_of(paths: Sequence[str], part: int, parts: int) -> list[str]:
    """The paths of part `part` of `parts`, counted from 1. A new image moves no other one."""
    return [path for path in paths if _number(path) % parts == part - 1]


def _number(path: str) -> int:
    digest = hashlib.sha256(stable_key(path)[0].encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little")


def name_of(part: int, parts: int) -> str:
    """The name of the folder of a part."""
    return f"part-{part}-of-{parts}"


def write_images(
    folder: Path, parts: int, results: Iterable[tuple[str, str | Refused]], images: Images
) -> None:
    """Says that one of `parts` is complete: the sha256 (hex) of each path, or its refusal."""
    rows = [
        {"path": path, "refused": result.reason}
        if isinstance(result, Refused)
        else {"path": path, "sha256": result}
        for path, result in results
    ]
    own = sorted({row["sha256"] for row in rows if "sha256" in row})
    places = images.find(sortable(own)).tolist()
    stages.sign(folder, parts, dict(zip(own, map(images.descriptor, places), strict=True)))
    write_json(folder / _IMAGES, rows)


def joined(place: Path, paths: Sequence[str], images: Images) -> Iterator[str | Refused]:
    """The sha256 (hex) or the refusal of each of `paths`, as the parts in `place` recorded them.

    Raises:
        UsageError: a part is missing, an image is new since its part was decoded, or what a part
            staged is not among `images` (damaged).
    """
    folders = _complete(place)
    part = np.fromiter((_number(path) % len(folders) for path in paths), np.int32)
    digests = np.zeros(len(paths), "S32")
    refused: dict[int, str] = {}
    new: list[int] = []
    for number, folder in enumerate(folders):
        rows = {row["path"]: row for row in json.loads((folder / _IMAGES).read_text("utf-8"))}
        for at in np.flatnonzero(part == number).tolist():
            row = rows.get(paths[at])
            if row is None:
                new.append(at)
            elif "refused" in row:
                refused[at] = row["refused"]
            else:
                digests[at] = bytes.fromhex(row["sha256"])
    if new:
        raise UsageError(
            f"--join: no part has decoded {few(paths[at] for at in sorted(new))}; run all parts "
            "again (they continue)"
        )
    for at in np.flatnonzero(images.find(digests) < 0).tolist():
        if at not in refused:
            raise UsageError(
                f"{folders[part[at]]}: {printable(paths[at])} is missing there (damaged?); remove "
                "this folder and run its part again"
            )
    octets = digests.view("V32")
    return (
        Refused(path, refused[at]) if at in refused else octets.item(at).hex()
        for at, path in enumerate(paths)
    )


def compare_part(
    out: str | os.PathLike[str],
    part: int,
    count: int,
    *,
    size: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Finds near-duplicates among the images of all parts, in range `part` of `count` of keys.

    Machines can do so at the same time, when all parts are decoded. `prepare(..., join=True)` does
    what was left out.

    Raises:
        UsageError: a part is not decoded.
    """
    place = staging(Path(out) / NAME, size)
    folders = [place / name_of(number, count) for number in range(1, count + 1)]
    missing = [n for n, own in enumerate(folders, 1) if not (own / _IMAGES).is_file()]
    if missing:
        numbers = few(f"{number}/{count}" for number in missing)
        raise UsageError(f"--compare {part}/{count}: not decoded yet: --part {numbers}")
    pairs = stages.compare(folders, part)
    with replacing(folders[part - 1] / _PAIRS) as file:
        np.savez(file, pairs=pairs, of=np.array(stages.digest(folders)))
    say(f"range {part} of {count}: {len(pairs)} pairs of near-duplicates")


def grouped(folder: Folder, place: Path) -> Folder:
    """`folder` with the groups of near-duplicates in its records, by what the parts signed."""
    folders = _complete(place)
    if not all((own / "sha256").is_file() for own in folders):  # of older code
        return folder
    signed = np.concatenate([stages.hashes(path) for path in folders])
    gone = np.setdiff1d(signed, sortable(folder.records.sha256))  # or refused since
    without = [digest.hex() for digest in gone.view("V32").tolist()]
    digest = stages.digest(folders, without)
    pairs = []
    for part, own in enumerate(folders, 1):
        found = _pairs(own / _PAIRS, digest)
        pairs.append(stages.compare(folders, part, without) if found is None else found)
    return _with_groups(folder, pairs)


def grouped_on(cluster: Cluster, folder: Folder, place: Path) -> Folder:
    """`folder` with the groups of near-duplicates in its records, found on the nodes of a cluster.

    A folder that is one job (`JOB`) is returned as it is.
    """
    records = folder.records
    _, rows = np.unique(sortable(records.sha256), return_index=True)
    count = -(-len(rows) // JOB)
    if count < 2:
        return folder
    folders = [place / f"job-{number}" for number in range(count)]
    jobs = (records.take(rows[number::count]) for number in range(count))
    signed = (
        (own, dict(zip(job.sha256, descriptors_of(job), strict=True)))
        for own, job in zip(folders, jobs, strict=True)
    )
    for own in folders:
        own.mkdir(exist_ok=True)
    list(cluster.map(_sign, signed, count))  # waits for all
    return _with_groups(folder, list(cluster.map(_compare, range(1, count + 1), folders)))


def _sign(job: tuple[Path, dict[str, bytes]], parts: int) -> None:
    folder, descriptors = job
    stages.sign(folder, parts, descriptors)


def _compare(part: int, folders: Sequence[Path]) -> UInt8[np.ndarray, "P 2 32"]:
    return stages.compare(folders, part)


def _with_groups(folder: Folder, pairs: Sequence[UInt8[np.ndarray, "P 2 32"]]) -> Folder:
    records = folder.records
    groups, sha256 = grouped_by_hash(records.sha256), sortable(records.sha256)
    if first := dict(sorted(stages.components(np.concatenate(pairs)).items())):
        own = sortable(list(first))
        place = np.searchsorted(own, sha256).clip(max=len(own) - 1)
        several = np.flatnonzero(own[place] == sha256)
        groups.values[several] = grouped_by_hash(list(first.values())).values[place[several]]
    return replace(folder, records=records.with_columns(group=groups))


def _pairs(path: Path, digest: str) -> UInt8[np.ndarray, "P 2 32"] | None:
    """Pairs that were found among the images of a digest, or None."""
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return arrays["pairs"] if str(arrays["of"]) == digest else None


def _complete(place: Path) -> list[Path]:
    """The folders of all parts, of the smallest number of parts of which none is missing."""
    found: dict[int, list[int]] = {}
    for folder in place.glob("part-*-of-*"):
        if match := re.fullmatch(r"part-(\d+)-of-(\d+)", folder.name):
            part, parts = map(int, match.groups())
            found.setdefault(parts, []).extend([part] * (folder / _IMAGES).is_file())
    missing = {parts: sorted({*range(1, parts + 1)} - {*done}) for parts, done in found.items()}
    for parts in sorted(missing):
        if not missing[parts]:
            return [place / name_of(part, parts) for part in range(1, parts + 1)]
    if not missing:
        raise UsageError("--join: no part was decoded with these flags; start with --part 1/N")
    parts = min(missing, key=lambda parts: len(missing[parts]))
    numbers = few(f"{part}/{parts}" for part in missing[parts])
    raise UsageError(f"--join: not complete yet: --part {numbers}")
