"""Pictures with what `data/cutout.py` takes for their object, to look at.

    python -m scripts.contact_sheet FOLDER OUT --pages 3

Each page shows, for pictures of all classes in turn, the picture beside its cut-out on magenta.
Made of your photographs: not for committing.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxgear.data.cutout import cutout
from jaxgear.data.images import load_rgba
from jaxgear.data.walk import list_pictures

CELL, ACROSS, DOWN = 150, 6, 6
MAGENTA = np.array([255, 0, 255])


def pasted(path: Path, ground: np.ndarray) -> Image.Image:
    """The picture on white, and its object on `ground` (RGB), side by side."""
    rgba = load_rgba(path)
    opacity = cutout(rgba)[..., None] / 255
    there = rgba[..., :3].astype(np.float32)
    alone = np.clip(there - (1 - opacity) * (255 - ground), 0, 255).astype(np.uint8)
    pair = Image.new("RGB", (2 * CELL, CELL), "white")
    for place, pixels in enumerate((rgba[..., :3], alone)):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.thumbnail((CELL - 4, CELL - 4))
        pair.paste(image, (place * CELL, 0))
    return pair


def main() -> None:
    """Writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pages", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    by_class: dict[str, list[str]] = {}
    order = lambda one: hashlib.sha256(one.path.encode()).hexdigest()  # noqa: E731
    for candidate in sorted(list_pictures(arguments.folder).candidates, key=order):
        by_class.setdefault(candidate.name, []).append(candidate.path)
    longest = max(map(len, by_class.values()))
    turns = [
        (name, by_class[name][turn])
        for turn in range(longest)
        for name in sorted(by_class)
        if turn < len(by_class[name])
    ]
    each = ACROSS * DOWN
    for page in range(arguments.pages):
        sheet = Image.new("RGB", (2 * CELL * ACROSS, CELL * DOWN), "white")
        pen = ImageDraw.Draw(sheet)
        for place, (name, path) in enumerate(turns[page * each : (page + 1) * each]):
            at = (2 * CELL * (place % ACROSS), CELL * (place // ACROSS))
            sheet.paste(pasted(arguments.folder / path, MAGENTA), at)
            pen.text(at, f"{name} {Path(path).name[:18]}", fill="black")
        sheet.save(arguments.out / f"cutouts-{page + 1}.png")


if __name__ == "__main__":
    main()
