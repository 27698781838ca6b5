"""Backgrounds to paste objects on: photographs of a folder, and drawn ones.

One folder serves training and tests with different photographs: each belongs to one half, which
depends only on its bytes.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxgear.data.folder import Refused
from jaxgear.data.images import load_rgb, read_bytes
from jaxgear.data.sources import find_pictures
from jaxgear.errors import DataError

Half = Literal["train", "test"]

DRAWN = 72  # drawn backgrounds in a bank
LARGER = 1.5  # side of a background, in sides of an image


def half_of(data: bytes) -> Half:
    """The half of a photograph, from the bytes of its file."""
    return "test" if hashlib.sha256(data).digest()[0] % 2 else "train"


def photographs(folder: Path, half: Half) -> list[tuple[Path, UInt8[np.ndarray, "H W 3"]]]:
    """The photographs of one half of a folder, by path.

    Raises:
        DataError: no such folder, a file that is not a whole image, or an empty half.
    """

    def read(file: Path | Refused) -> tuple[Path, np.ndarray] | None:
        if isinstance(file, Refused):
            raise DataError(f"{file.path}: {file.reason}")
        data = read_bytes(file, str(file))
        return (file, load_rgb(data, str(file))) if half_of(data) == half else None

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of background photographs")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(read, find_pictures([folder]))
        chosen = [result for result in results if result is not None]
    if not chosen:
        raise DataError(f"{folder}: no background photographs in its {half} half; add some")
    return chosen


def background_bank(folder: Path | None, size: int, seed: int = 0) -> UInt8[np.ndarray, "M T T 3"]:
    """Backgrounds for images of `size`: drawn ones, and the training half of `folder`.

    Each photograph gives four pieces: its two ends, and two random pieces of half its size.
    """
    side = round(size * LARGER)
    drawn = drawn_backgrounds(DRAWN, side, seed)
    if folder is None:
        return drawn
    rng = np.random.default_rng(seed)
    pieces = []
    for _, photograph in photographs(folder, "train"):
        height, width = photograph.shape[:2]
        least = min(height, width)
        places = [(0, 0, least), (height - least, width - least, least)]
        half = least // 2
        places += [(*rng.integers(0, (height - half + 1, width - half + 1)), half)] * (half > 0)
        places += [(*rng.integers(0, (height - half + 1, width - half + 1)), half)] * (half > 0)
        for top, left, length in places:
            piece = Image.fromarray(photograph[top : top + length, left : left + length])
            pieces.append(np.asarray(piece.resize((side, side), Image.Resampling.BICUBIC)))
    return np.concatenate([np.stack(pieces), drawn])


def drawn_backgrounds(count: int, side: int, seed: int) -> UInt8[np.ndarray, "M T T 3"]:
    """Scenery, noise of varying smoothness, textures and gradients in turn, from a seed."""
    rng = np.random.default_rng((seed, 4))
    painters = (_scenery, _cloudy, _scenery, _texture, _scenery, _gradient)
    images = [painters[number % len(painters)](rng, side) for number in range(count)]
    return np.clip(np.stack(images), 0, 255).astype(np.uint8)


def _fractal(
    rng: np.random.Generator, shape: tuple[int, ...], slope: float
) -> Float[np.ndarray, "..."]:
    """Noise with spectrum 1 / f^slope, on any number of axes, with values from 0 to 1."""
    grids = np.meshgrid(*(np.fft.fftfreq(n) * n for n in shape), indexing="ij")
    frequency = np.maximum(np.sqrt(sum(grid**2 for grid in grids)), 1)
    spectrum = np.fft.fftn(rng.normal(size=shape)) / frequency**slope
    values = np.fft.ifftn(spectrum).real
    low, high = np.quantile(values, [0.01, 0.99])
    return np.clip((values - low) / (high - low + 1e-9), 0, 1)


def _colours(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 3"]:
    """Colours of earth, stone, snow and leaves: variations of one hue, rarely vivid."""
    base = rng.uniform(20, 240) + rng.normal(0, 1, 3) * rng.choice([6, 20, 45])
    return base + rng.normal(0, 1, (count, 1)) * 45 + rng.normal(0, 12, (count, 3))


def _mapped(
    values: Float[np.ndarray, "H W"], colours: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "H W 3"]:
    """Maps values from 0 to 1 to a colour scale."""
    steps = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, steps, colours[:, c]) for c in range(3)], axis=-1)


def _cloudy(rng: np.random.Generator, side: int) -> Float[np.ndarray, "T T 3"]:
    values = _fractal(rng, (side, side), rng.uniform(0.7, 2.0))
    return _mapped(values, _colours(rng, int(rng.integers(2, 6))))


def _texture(rng: np.random.Generator, side: int) -> Float[np.ndarray, "T T 3"]:
    """Folds, bark or gravel: stretched noise, bent by smoother noise, at times with hard edges."""
    bend = _fractal(rng, (side, side), 2.0) * rng.uniform(0, 8)
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side] / side
    along = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(4, 30)
    values = (np.sin(along * 2 + bend) + 1) / 2 * rng.uniform(0.3, 1)
    values = np.clip(values + _fractal(rng, (side, side), rng.uniform(0.5, 1.2)) * 0.6, 0, 1)
    if rng.random() < 0.5:
        levels = int(rng.integers(2, 6))
        values = np.floor(values * levels) / levels
    return _mapped(values, _colours(rng, 4))


def _gradient(rng: np.random.Generator, side: int) -> Float[np.ndarray, "T T 3"]:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side] / side
    values = x * np.cos(angle) + y * np.sin(angle)
    values = (values - values.min()) / np.ptp(values)
    return _mapped(values, _colours(rng, 2)) + rng.normal(0, rng.uniform(0, 8), (side, side, 1))


def _scenery(rng: np.random.Generator, side: int) -> Float[np.ndarray, "T T 3"]:
    """Sky, clouds and ridges of snow or rock that fade with distance."""
    y = np.linspace(0, 1, side)[:, None]
    zenith = np.array([rng.uniform(20, 190), rng.uniform(70, 200), rng.uniform(130, 250)])
    horizon = zenith * 0.4 + rng.uniform(100, 150)
    image = zenith + (horizon - zenith) * y[..., None] * np.ones((1, side, 1))
    cloud = np.clip(_fractal(rng, (side, side), 1.6) * 2 - rng.uniform(0.4, 2), 0, 1)[..., None]
    image += (rng.uniform(200, 255) - image) * cloud
    count = int(rng.integers(2, 5))
    levels = np.sort(rng.uniform(0.1, 0.95, count))
    for number, level in enumerate(levels):
        crest = level + (_fractal(rng, (2 * side,), 1.3)[:side] - 0.5) * rng.uniform(0.05, 0.5)
        rock = _mapped(_fractal(rng, (side, side), rng.uniform(0.7, 1.5)), _colours(rng, 3))
        snow = _fractal(rng, (side, side), 1.2) + (0.5 - y) * 1.5 > rng.uniform(0.2, 1.4)
        shade = rng.uniform(180, 255) + 40 * (_fractal(rng, (side, side), 1.5) - 0.5)
        rock = np.where(snow[..., None], shade[..., None], rock)
        haze = (1 - (number + 1) / count) * rng.uniform(0.3, 0.9)
        rock = rock + (horizon - rock) * haze
        image = np.where((y > crest[None])[..., None], rock, image)
    return image
