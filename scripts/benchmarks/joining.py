"""The task `join` of scripts/scale.py: what `jaxgear prepare --join` takes."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgear.data.images import encode_png
from jaxgear.data.prepare.parts import compare_part
from jaxgear.data.prepare.prepared import prepare, prepare_part
from jaxgear.data.synthetic import CLASSES
from scripts.benchmarks.stages import alone

SIDE = 16  # pixels


def join(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a processor and peak memory of joining `--parts` parts of `--count` images."""
    images, out, parts = arguments.folder / "images", arguments.folder / "set", arguments.parts
    _draw(images, arguments.count)
    shutil.rmtree(out, ignore_errors=True)
    for part in range(1, parts + 1):
        prepare_part(images, out, part, parts, size=SIDE, say=lambda line: None)
    for part in range(1, parts + 1):
        compare_part(out, part, parts, size=SIDE, say=lambda line: None)
    line, seconds, mib = alone(_joining, images, out)
    return {"images": arguments.count, "seconds": seconds, "mib_more": mib, "set": line}


def _joining(images: Path, out: Path) -> Callable[[], str]:
    def joining() -> str:
        lines: list[str] = []
        prepare(images, out, size=SIDE, workers=1, join=True, say=lines.append)
        return lines[-1]

    return joining


def _draw(folder: Path, count: int) -> None:
    """Writes tiny images, no two alike, where there are none yet."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:09d}.png"
        image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        if not path.exists():
            path.write_bytes(encode_png(image))
