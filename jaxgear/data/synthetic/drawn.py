"""The drawn set: any number of labelled images of twelve kinds of gear, without a download.

Fresh machines, tests and committed figures use it in place of photographs. Pose, colours, details,
light and surroundings of an object are random. Only its shape shows its class, so a linear model on
pixels fails where a CNN does not.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from jaxgear.data.synthetic import fabric as drawn_fabric
from jaxgear.data.synthetic import jackets as drawn_jackets
from jaxgear.data.synthetic import metal as drawn_metal
from jaxgear.data.synthetic.pen import Palette, Pen
from jaxgear.data.synthetic.scenes import clutter, plain, scenery
from jaxgear.errors import DataError

SHAPES: dict[str, Callable[[Pen, np.random.Generator, Palette], None]] = {
    "axes": drawn_metal.axe,
    "boots": drawn_fabric.boot,
    "carabiners": drawn_metal.carabiner,
    "crampons": drawn_metal.crampon,
    "gloves": drawn_fabric.glove,
    "hardshell_jackets": drawn_jackets.hardshell,
    "harnesses": drawn_fabric.harness,
    "helmets": drawn_metal.helmet,
    "insulated_jackets": drawn_jackets.insulated,
    "pulleys": drawn_metal.pulley,
    "rope": drawn_fabric.rope,
    "tents": drawn_fabric.tent,
}
CLASSES = tuple(SHAPES)
VERSION = 1  # raise it whenever the image of a (seed, index) would change
MARKER = ".drawn.json"


def draw(class_name: str, rng: np.random.Generator, size: int = 160) -> Image.Image:
    """One image of a class, with a longest side of `size` pixels.

    RGB, or RGBA with a transparent background (one in eight). A pure function of `rng`'s state.
    """
    shape = SHAPES[class_name]
    aspect = rng.choice([1.0, rng.uniform(0.72, 1.0), 1 / rng.uniform(0.72, 1.0)])
    width, height = round(size * min(1.0, aspect)), round(size / max(1.0, aspect))
    scale = 2  # supersampling
    layer = Image.new("RGBA", (width * scale, height * scale))
    shape(Pen(layer, _pose(rng, width * scale, height * scale)), rng, Palette.random(rng))
    layer = _lit(layer.reduce(scale), rng)
    setting = rng.random()
    if setting < 0.125:
        return layer
    canvas = (scenery if setting < 0.28 else plain)(rng, width, height)
    if rng.random() < 0.3:
        clutter(canvas, rng)
    if rng.random() < 0.6:
        _cast_shadow(canvas, layer, rng)
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _pose(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Homography [3, 3] from the object's frame to pixels: turned, mirrored, scaled, tilted."""
    turn = np.radians(rng.uniform(-30, 30))
    flip = rng.choice([-1.0, 1.0])
    stretch = rng.uniform(0.85, 1.15)
    c, s = np.cos(turn), np.sin(turn)
    linear = np.array([[c, -s], [s, c]]) @ [[1.0, rng.uniform(-0.15, 0.15)], [0.0, 1.0]]
    linear = linear @ np.diag([flip * stretch, 1 / stretch])
    # Half the frame's side in pixels. Corners of a rotated frame may stick out: objects rarely do.
    half = min(width, height) / 2 * rng.uniform(0.75, 1.0) / (1 + 0.18 * abs(np.sin(2 * turn)))
    slack = np.maximum(0, np.array([width, height]) / 2 - half * 0.9)
    centre = np.array([width, height]) / 2 + rng.uniform(-0.8, 0.8, 2) * slack
    matrix = np.eye(3)
    matrix[:2, :2] = linear * half
    matrix[:2, 2] = centre
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-0.12, 0.12, 2)
    return matrix @ tilt


def _lit(layer: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`layer` (RGBA) under a light that falls off across it."""
    corners = rng.uniform(150, 255, (2, 2))
    corners[tuple(rng.integers(0, 2, 2))] = 255
    light = Image.fromarray(corners.astype(np.uint8)).resize(layer.size, Image.Resampling.BILINEAR)
    lit = ImageChops.multiply(layer.convert("RGB"), Image.merge("RGB", [light] * 3))
    lit.putalpha(layer.getchannel("A"))
    return lit


def _cast_shadow(canvas: Image.Image, layer: Image.Image, rng: np.random.Generator) -> None:
    """Darkens `canvas` (RGB) softly below and beside the object."""
    small = layer.getchannel("A").reduce(4).filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2)))
    strength = rng.uniform(0.15, 0.5)
    mask = small.point(lambda a: int(a * strength)).resize(layer.size, Image.Resampling.BILINEAR)
    offset = rng.uniform(-0.04, 0.06, 2) * layer.width
    canvas.paste((30, 30, 35), (int(offset[0]), abs(int(offset[1]))), mask)


def write_drawn(folder: Path, count: int, seed: int = 0, size: int = 160) -> Path:
    """Writes images 0 to `count` - 1 as FOLDER/<class>/<index>.jpg (or .png); returns FOLDER.

    Image i is a pure function of (`seed`, i, `size`); its class has number i modulo 12. A complete
    folder of the same images stays unchanged; a folder of other drawn images is replaced. The
    folder appears whole or not at all.

    Raises:
        DataError: the folder holds other files, or cannot be written.
    """
    folder = Path(folder)
    marker = {"version": VERSION, "count": count, "seed": seed, "size": size}
    if _is_complete(folder, marker):
        return folder
    if folder.exists() and not _is_ours(folder):
        raise DataError(f"{folder}: holds files that were not drawn here; choose another folder")
    try:
        _write_whole(folder, marker)
    except OSError as error:
        if not _is_complete(folder, marker):  # it is complete if another process was faster
            raise DataError(f"{folder}: cannot write the drawn pictures: {error}") from error
    return folder


def _write_whole(folder: Path, marker: dict[str, int]) -> None:
    """Draws into a temporary folder beside `folder`, then renames it to `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = work / "new"
        for name in CLASSES:
            (new / name).mkdir(parents=True)
        for index in range(marker["count"]):
            name = CLASSES[index % len(CLASSES)]
            rng = np.random.default_rng([marker["seed"], index])
            picture = draw(name, rng, marker["size"])
            if picture.mode == "RGBA":
                picture.save(new / name / f"{index:06d}.png", compress_level=1)
            else:
                picture.save(new / name / f"{index:06d}.jpg", quality=90)
        (new / MARKER).write_text(json.dumps(marker))
        if _is_complete(folder, marker):
            return  # another process was faster, and may already read the folder
        if folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))


def _is_complete(folder: Path, marker: dict[str, int]) -> bool:
    try:
        same = json.loads((folder / MARKER).read_text()) == marker
    except (OSError, ValueError):
        return False
    return same and sum(1 for _ in folder.glob("*/*.*")) == marker["count"]
