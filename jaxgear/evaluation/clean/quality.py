"""Pictures of poor quality: dark, blurred, blank, tiny, or of an odd shape.

Blur is measured by blurring again: a sharp picture changes much, a blurred one little (F. Crete, T.
Dolmiere, P. Ladret, M. Nicolas, "The blur effect", Human Vision and Electronic Imaging, 2007).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import uniform_filter1d

from jaxgear.data.folder import Folder, Record
from jaxgear.data.images import decoded, letterbox_image
from jaxgear.notebook.progress import bar

# Chosen on 1,697 catalogue photographs, 97 crops and 113 outdoor photographs: only a few small
# crops exceed a limit. After a Gaussian blur of 1 % of the side, 99 % do.
SIZE = 256  # pixels of the longer side on which light and blur are measured, never enlarged
DARK = 80  # grey level, of 255, that 95 % of the pixels stay below
BLURRED = 0.6
BLANK = 2.0  # grey levels of standard deviation
TINY = 64  # pixels of the longer side
ODD = 0.25  # shorter side / longer side
_WINDOW = 9  # pixels, as in the paper
_BLOCK = 1024  # records at a time

Faults = list[tuple[float, str]]  # how far a picture is beyond each limit (0 to 1), and in words


@dataclass(frozen=True)
class Quality:
    """What is measured of one picture."""

    light: float  # 95th percentile of grey, 0 to 255
    spread: float  # standard deviation of grey
    blur: float  # 0 (sharp) to 1


def find_poor(folder: Folder) -> list[tuple[Record, Faults]]:
    """The records that break a limit; `DataError` if a file changed since it was checked.

    A bar shows how many are measured.
    """
    found, total = [], len(folder.records)
    # Pillow releases the GIL while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar("quality") as tick:
        for start in range(0, total, _BLOCK):
            records = tuple(folder.records[start : start + _BLOCK])
            measured = pool.map(lambda record: _measured(folder, record), records)
            for row, (record, quality) in enumerate(zip(records, measured, strict=True), start):
                if broken := faults(record, quality):
                    found.append((record, broken))
                tick(row + 1, total)
    return found


def _measured(folder: Folder, record: Record) -> Quality:
    with decoded(folder.read(record), record.path, least=SIZE) as picture:
        image = picture.image
        size = min(SIZE, max(image.size))
        width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
        square = letterbox_image(image, size)
    top, left = (size - height) // 2, (size - width) // 2
    return quality_of(square[top : top + height, left : left + width])


def quality_of(pixels: UInt8[np.ndarray, "H W 3"]) -> Quality:
    """The quality of decoded pixels."""
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return Quality(float(np.percentile(grey, 95)), float(grey.std()), blur(grey))


def blur(grey: Float[np.ndarray, "H W"]) -> float:
    """The blur effect: 0 for a sharp picture, 1 if blurring it again changes nothing."""
    return max(_blur(grey, axis) for axis in (0, 1))


def _blur(grey: Float[np.ndarray, "H W"], axis: int) -> float:
    before = np.abs(np.diff(grey, axis=axis))
    after = np.abs(np.diff(uniform_filter1d(grey, _WINDOW, axis=axis), axis=axis))
    total = float(before.sum(dtype=np.float64))
    lost = float(np.maximum(before - after, 0).sum(dtype=np.float64))
    return (total - lost) / total if total > 0 else 0.0


def faults(record: Record, quality: Quality) -> Faults:
    """The limits that a picture breaks."""
    short, long = sorted((record.height, record.width))
    found = []
    if quality.spread < BLANK:
        found.append((1.0, "blank"))
    elif quality.blur > BLURRED:
        beyond = (quality.blur - BLURRED) / (1 - BLURRED)
        found.append((beyond, f"blurred ({quality.blur:.2f} of 1)"))
    if quality.light < DARK:
        found.append((1 - quality.light / DARK, f"dark (95 % below grey {quality.light:.0f})"))
    if long < TINY:
        found.append((1 - long / TINY, f"tiny ({record.width} x {record.height} pixels)"))
    if short / long < ODD:
        found.append((1 - short / long / ODD, f"odd shape ({record.width} x {record.height})"))
    return found
