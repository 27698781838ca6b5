"""Draws pictures beside the objects that data/composites/masks.py cuts out of them, to check.

    python -m scripts.contact_sheet FOLDER OUT --pages 3

Each page shows pictures of all classes in turn, each beside its cut-out on magenta. The pages show
your photographs, so do not commit them.
"""

import argparse
import hashlib
import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxgear.cli import exit_with
from jaxgear.data.composites import cutout
from jaxgear.data.folder import list_pictures
from jaxgear.data.images import load_rgba
from jaxgear.errors import DataError, UsageError
from jaxgear.paths import path_argument

CELL, ACROSS, DOWN = 150, 6, 6
MAGENTA = np.array([255, 0, 255])


def pair(path: Path, ground: np.ndarray) -> Image.Image:
    """The picture on white, and its object on `ground` (RGB), side by side."""
    rgba = load_rgba(path.read_bytes(), str(path))
    opacity = cutout(rgba)[..., None] / 255
    on_white = rgba[..., :3].astype(np.float32)
    pasted = np.clip(on_white - (1 - opacity) * (255 - ground), 0, 255).astype(np.uint8)
    sides = Image.new("RGB", (2 * CELL, CELL), "white")
    for place, pixels in enumerate((rgba[..., :3], pasted)):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.thumbnail((CELL - 4, CELL - 4))
        sides.paste(image, (place * CELL, 0))
    return sides


def in_turn(folder: Path) -> list[tuple[str, str]]:
    """Class and path of every picture: the first of each class, then the second of each, ..."""
    by_class: dict[str, list[str]] = {}
    order = lambda candidate: hashlib.sha256(candidate.path.encode()).hexdigest()  # noqa: E731
    for candidate in sorted(list_pictures(folder).candidates, key=order):
        by_class.setdefault(candidate.name, []).append(candidate.path)
    turns = itertools.zip_longest(*(by_class[name] for name in sorted(by_class)))
    return [
        (name, path)
        for turn in turns
        for name, path in zip(sorted(by_class), turn, strict=True)
        if path is not None
    ]


def write(folder: Path, out: Path, pages: int) -> None:
    """Writes OUT/cutouts-*.png, at most `pages` of them."""
    if pages < 1:
        raise UsageError(f"--pages {pages}: must be at least 1")
    each, pictures = ACROSS * DOWN, in_turn(folder)
    if not pictures:
        raise DataError(f"{folder}: no pictures in it; they belong in a folder for each class")
    for page in range(min(pages, -(-len(pictures) // each))):
        sheet = Image.new("RGB", (2 * CELL * ACROSS, CELL * DOWN), "white")
        pen = ImageDraw.Draw(sheet)
        for place, (name, path) in enumerate(pictures[page * each :][:each]):
            at = (2 * CELL * (place % ACROSS), CELL * (place // ACROSS))
            sheet.paste(pair(folder / path, MAGENTA), at)
            pen.text(at, f"{name} {Path(path).name[:18]}", fill="black")
        try:
            out.mkdir(parents=True, exist_ok=True)
            sheet.save(out / f"cutouts-{page + 1}.png")
        except OSError as error:
            raise UsageError(f"{out}: cannot be written ({error.strerror})") from error


def main() -> None:
    """Writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("out", type=path_argument)
    parser.add_argument("--pages", type=int, default=2)
    arguments = parser.parse_args()
    exit_with(lambda: write(arguments.folder, arguments.out, arguments.pages))


if __name__ == "__main__":
    main()
