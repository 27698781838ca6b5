"""Makes small images and data folders from a seed."""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image


def scene(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """An image of coloured blocks, u8 [H, W, 3]; no near-duplicate of other seeds."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """The bytes of an image file in Pillow's format `kind`."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return file.getvalue()


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """A cache of its own for what is done inside: images are decoded once more."""
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, JAXGEAR_CACHE=cache):
        yield


def write_set(root: Path, counts: dict[str, int], *, start: int = 0) -> Path:
    """Writes `counts` distinct images of each class to `root/<class>/<seed>.png`.

    A class may be `split/class`. Seeds count from `start`.
    """
    seed = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (root / name / f"{seed:05d}.png").write_bytes(encoded(scene(seed)))
            seed += 1
    return root


def digests(root: str | Path) -> dict[str, str]:
    """Path relative to `root` -> sha256 of each file; not its bytes, of which a failed comparison
    would print a difference for minutes.
    """
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def placed(out: str | Path = "out") -> dict[str, bytes]:
    """Of a sorted folder: path relative to `out` -> bytes of each picture there."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in Path(out).rglob("*.*")
        if path.is_file() and path.suffix != ".csv" and ".sorted" not in path.parts
    }
