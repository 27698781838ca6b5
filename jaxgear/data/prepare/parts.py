"""Parts of a folder that several machines decode, each into a folder of its own.

`OUT/gear/.staging-.../part-3-of-16` has the staged images of a part. When all of its images are
decoded, `images.json` there says which image has which file, or why it was refused.
"""

import hashlib
import json
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from jaxgear.data.folder import Refused
from jaxgear.errors import UsageError
from jaxgear.files import write_json
from jaxgear.text import few, printable, stable_key

_IMAGES = "images.json"


def paths_of(paths: Sequence[str], part: int, parts: int) -> list[str]:
    """The paths of part `part` of `parts`, counted from 1. A new image moves no other one."""
    return [path for path in paths if _number(path) % parts == part - 1]


def _number(path: str) -> int:
    digest = hashlib.sha256(stable_key(path)[0].encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little")


def name_of(part: int, parts: int) -> str:
    """The name of the folder of a part."""
    return f"part-{part}-of-{parts}"


def write_images(folder: Path, images: Sequence[tuple[str, str | Refused]]) -> None:
    """Says that a part is complete: the sha256 (hex) of each path, or its refusal."""
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
