"""Parts of a folder that several machines decode, each into a folder of its own.

`OUT/gear/.staging-.../part-3-of-16` has the staged images of a part. When all of its images are
decoded, `images.json` there says which image has which file, or why it was refused. Near-duplicates
are found in stages over files (data/splits/stages.py): a part signs its images, `compare_part`
writes `pairs.npz` for a range of keys, and `grouped` makes groups of the pairs. `grouped_on` has a
cluster do all of it.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from jaxgear.cluster import Cluster
from jaxgear.data.folder import Folder, Refused
from jaxgear.data.images import decode, descriptor
from jaxgear.data.prepare.workshop import ToStore
from jaxgear.data.splits import stages
from jaxgear.data.tfds.shards import NAME
from jaxgear.errors import UsageError
from jaxgear.files import replacing, write_json
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
    folder: Path,
    parts: int,
    images: Sequence[tuple[str, str | Refused]],
    known: Mapping[str, ToStore],
) -> None:
    """Says that one of `parts` is complete: the sha256 (hex) of each path, or its refusal."""
    own = {image for _, image in images if isinstance(image, str)}
    stages.sign(folder, parts, {sha256: known[sha256].descriptor for sha256 in own})
    rows = [
        {"path": path, "refused": image.reason}
        if isinstance(image, Refused)
        else {"path": path, "sha256": image}
        for path, image in images
    ]
    write_json(folder / _IMAGES, rows)


def joined(place: Path, paths: Sequence[str], known: Container[str]) -> Iterator[str | Refused]:
    """The sha256 (hex) or the refusal of each of `paths`, as the parts in `place` recorded them.

    Raises:
        UsageError: a part is missing, an image is new since its part was decoded, or what a part
            staged is not among `known` (damaged).
    """
    images: dict[str, str | Refused] = {}
    for folder in _complete(place):
        for row in json.loads((folder / _IMAGES).read_text(encoding="utf-8")):
            path = row["path"]
            images[path] = Refused(path, row["refused"]) if "refused" in row else row["sha256"]
            if "sha256" in row and row["sha256"] not in known:
                raise UsageError(
                    f"{folder}: {printable(path)} is missing there (damaged?); remove this folder "
                    "and run its part again"
                )
    if new := [path for path in paths if path not in images]:
        raise UsageError(
            f"--join: no part has decoded {few(new)}; run all parts again (they continue)"
        )
    return (images[path] for path in paths)


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
    signed = {own.hex() for path in folders for own in stages.hashes(path)}
    without = signed - {record.sha256 for record in folder.records}  # gone, or refused since
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
    descriptors = {record.sha256: record.descriptor for record in folder.records}
    count, sha256 = -(-len(descriptors) // JOB), sorted(descriptors)
    if count < 2:
        return folder
    folders = [place / f"job-{number}" for number in range(count)]
    jobs = ({key: descriptors[key] for key in sha256[n::count]} for n in range(count))
    signed = zip(folders, jobs, strict=True)
    for own in folders:
        own.mkdir(exist_ok=True)
    for _ in cluster.map(_sign, signed, count):
        pass
    return _with_groups(folder, list(cluster.map(_compare, range(1, count + 1), folders)))


def _sign(job: tuple[Path, dict[str, bytes]], parts: int) -> None:
    folder, descriptors = job
    stages.sign(folder, parts, descriptors)


def _compare(part: int, folders: Sequence[Path]) -> UInt8[np.ndarray, "P 2 32"]:
    return stages.compare(folders, part)


def _with_groups(folder: Folder, pairs: Sequence[UInt8[np.ndarray, "P 2 32"]]) -> Folder:
    first = stages.components(np.concatenate(pairs))
    records = (
        replace(record, group=first.get(record.sha256, record.sha256)[:12])
        for record in folder.records
    )
    return replace(folder, records=tuple(records))


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
