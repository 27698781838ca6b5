"""Pastes objects of a run's test split on outdoor photographs that the run never trained on.

    python -m scripts.outdoor_test RUN PHOTOGRAPHS OUT --not-gear SCENES
    python -m jaxgear evaluate RUN OUT --not-gear SCENES

Writes one composite for each image of the test split to OUT/<class>/, and the photographs alone to
SCENES. For choices, use the validation split (`--side val`). The photographs are the half of
PHOTOGRAPHS that `--backgrounds PHOTOGRAPHS` does not use. Composites are made from the picture
files, larger than networks see them and supersampled, by other rules than the augmentation's. The
same run, photographs and seed give the same pixels. The composites show your photographs, so do not
commit them.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from jaxgear.cli import exit_with
from jaxgear.data.composites import cutout, photographs
from jaxgear.data.images import load_rgba
from jaxgear.errors import UsageError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.own_pictures import only, open_source
from jaxgear.paths import path_argument

SIDE, FINER = 384, 2  # pixels of a composite, supersampling


def composite(rgba: np.ndarray, photograph: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """The object of a picture (u8 [H, W, 4], on white) in a photograph (u8 [H, W, 3])."""
    side = SIDE * FINER
    opacity = cutout(rgba).astype(np.float32)[..., None] / 255
    light = np.maximum(rgba[..., :3] - 255 * (1 - opacity), 0)
    rows, columns = np.nonzero(opacity[..., 0] > 0.5)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    planes = [Image.fromarray(plane) for plane in np.moveaxis(light, -1, 0)]
    planes = [plane.crop(box) for plane in (*planes, Image.fromarray(opacity[..., 0]))]

    share = rng.uniform(0.55, 0.95)
    scale = share * side / max(planes[0].size)
    size = tuple(max(1, round(length * scale)) for length in planes[0].size)
    angle = rng.uniform(-15, 15) * (rng.random() < 0.5)
    mirror = rng.random() < 0.5
    moved = []
    for plane in planes:
        if mirror:
            plane = plane.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        plane = plane.resize(size, Image.Resampling.BICUBIC)
        moved.append(np.asarray(plane.rotate(angle, Image.Resampling.BICUBIC, expand=True)))
    layer = np.stack(moved, axis=-1)  # [h, w, 4]

    ground = _piece(photograph, side, rng)
    free = [max(0, side - length) for length in layer.shape[:2]]
    top, left = (round(space * rng.uniform(0.2, 0.8)) for space in free)
    layer = layer[: side - top, : side - left]
    height, width = layer.shape[:2]
    behind = ground[top : top + height, left : left + width]
    shown = np.clip(layer[..., 3:], 0, 1)
    # Half of the strength and colour of the scene's light (square root).
    mean = ground.mean(axis=(0, 1))
    light = layer[..., :3] * np.clip(mean / 140, 0.5, 1.4) ** 0.5
    behind[:] = np.clip(light, 0, 255) + (1 - shown) * behind
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _piece(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, at least half its shorter side long: f32 [side, side, 3]."""
    height, width = photograph.shape[:2]
    length = int(min(height, width) * rng.uniform(0.5, 1))
    top, left = (int(rng.integers(0, most - length + 1)) for most in (height, width))
    piece = Image.fromarray(photograph[top : top + length, left : left + length])
    return np.asarray(piece.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)


def build(run: Path, folder: Path, out: Path, split: str, data: str, seed: int) -> int:
    """Writes OUT/<class>/*.jpg; returns their number."""
    finished = FinishedRun.read(run)
    if out.exists():
        raise UsageError(f"{out}: exists already; name a new folder")
    pictures = finished.split(split)
    own = only(open_source(finished, data or None, SIDE), finished, pictures, data or None)
    grounds = [pixels for _, pixels in photographs(folder, "test")]
    for picture, record in zip(pictures, own.records, strict=True):
        rng = np.random.default_rng((seed, int(picture.sha256[:8], 16)))
        ground = grounds[rng.integers(len(grounds))]
        image = composite(load_rgba(own.read(record), picture.path), ground, rng)
        place = out / picture.name / f"{picture.sha256[:16]}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, quality=int(rng.integers(70, 96)))
    return len(pictures)


def main() -> None:
    """Writes OUT and SCENES."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=path_argument)
    parser.add_argument("photographs", type=path_argument)
    parser.add_argument("out", type=path_argument)
    parser.add_argument("--side", choices=["test", "val"], default="test")
    parser.add_argument("--data", default="", help="the run's pictures, if they have moved")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--not-gear", type=path_argument, help="copy the photographs there")
    arguments = parser.parse_args()

    def run() -> None:
        count = build(
            arguments.run,
            arguments.photographs,
            arguments.out,
            arguments.side,
            arguments.data,
            arguments.seed,
        )
        print(f"{arguments.out}\t{count} composites")
        if arguments.not_gear:
            arguments.not_gear.mkdir(parents=True, exist_ok=True)
            for path, _ in photographs(arguments.photographs, "test"):
                shutil.copyfile(path, arguments.not_gear / path.name)

    exit_with(run)


if __name__ == "__main__":
    main()
