"""What must and what must not count as the same photograph."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxgear.data import looks
from jaxgear.data.looks import alike, describe


def catalogue(seed: int, colour: tuple[int, int, int] = (30, 60, 160)) -> np.ndarray:
    """An object of random outline and inner detail on white, as in a shop: u8 [300, 240, 3]."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 300), "white")
    draw = ImageDraw.Draw(image)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = rng.uniform(55, 110, 14)
    outline = np.stack([120 + radius * np.cos(angle), 150 + 1.25 * radius * np.sin(angle)], 1)
    draw.polygon([tuple(p) for p in outline.clip(5, 290)], fill=colour)
    for _ in range(12):
        x, y = rng.uniform(60, 180), rng.uniform(70, 230)
        shade = tuple(int(c * rng.uniform(0.3, 1.5)) for c in colour)
        draw.ellipse((x, y, x + rng.uniform(8, 50), y + rng.uniform(8, 50)), fill=shade)
    return np.asarray(image)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(pixels: np.ndarray, factor: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((int(width * factor), int(height * factor))))


def margin(pixels: np.ndarray, top: int, left: int) -> np.ndarray:
    return np.pad(pixels, ((top, 12), (left, 30), (0, 0)), constant_values=255)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return list(alike([describe(a), describe(b)])) != []


COPIES = {
    "quality 50": lambda x: jpeg(x, 50),
    "quality 20": lambda x: jpeg(x, 20),
    "60 %": lambda x: resized(x, 0.6),
    "25 %": lambda x: resized(x, 0.25),
    "200 %": lambda x: resized(x, 2.0),
    "60 %, quality 50": lambda x: jpeg(resized(x, 0.6), 50),
    "white margin": lambda x: margin(x, 40, 5),
    "white margin, quality 50": lambda x: jpeg(margin(x, 40, 5), 50),
    "margin cut": lambda x: x[15:-10, 8:-3],
    "brighter": lambda x: np.clip(x * 1.1, 0, 255).astype(np.uint8),
    "grey": lambda x: np.asarray(Image.fromarray(x).convert("L").convert("RGB")),
    "1 row cropped": lambda x: x[1:],
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_look_alike(change: str):
    missed = [s for s in range(20) if not same(catalogue(s), COPIES[change](catalogue(s)))]
    assert len(missed) <= 1, f"{change}: missed {missed}"


def test_the_same_object_recoloured_looks_alike():
    """Its shape would leak. Shading relative to the main colour stays, as in product series."""
    missed = [s for s in range(20) if not same(catalogue(s), catalogue(s, (160, 50, 40)))]
    assert len(missed) <= 7


def test_different_objects_on_white_do_not():
    assert list(alike([describe(catalogue(s)) for s in range(60)])) == []


def shape(kind: str, inset: int) -> np.ndarray:
    image = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(image)
    box = (inset, inset, 300 - inset, 300 - inset)
    middle = 150
    far = 300 - inset
    thick = (far - inset) // 8
    match kind:
        case "disc":
            draw.ellipse(box, fill="navy")
        case "square":
            draw.rectangle(box, fill="navy")
        case "triangle":
            draw.polygon([(middle, inset), (far, far), (inset, far)], fill="navy")
        case "ring":
            draw.ellipse(box, outline="navy", width=thick)
        case "frame":
            draw.rectangle(box, outline="navy", width=thick)
        case "plus":
            draw.rectangle((middle - thick, inset, middle + thick, far), fill="navy")
            draw.rectangle((inset, middle - thick, far, middle + thick), fill="navy")
        case "diamond":
            draw.polygon([(middle, inset), (far, middle), (middle, far), (inset, middle)], "navy")
    return np.asarray(image)


KINDS = ["disc", "square", "triangle", "ring", "frame", "plus", "diamond"]


@pytest.mark.parametrize("inset", [30, 80, 110, 135])
def test_simple_shapes_on_white_do_not(inset: int):
    """The trap of difference hashes: small shapes differ in few bits of a white frame."""
    for a, b in combinations(KINDS, 2):
        assert not same(shape(a, inset), shape(b, inset)), (a, b)


def test_blank_pictures_say_nothing():
    white, black = np.full((50, 50, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8)
    speck = white.copy()
    speck[20:22, 20:22] = 0
    described = [describe(p) for p in (white, black, speck, white[:40])]
    assert list(alike(described)) == []


def test_a_mirror_image_is_another_picture():
    assert not any(same(catalogue(s), catalogue(s)[:, ::-1].copy()) for s in range(10))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_any_size_can_be_described(size: tuple[int, int]):
    pixels = np.zeros((*size, 3), np.uint8)
    assert len(describe(pixels)) == len(describe(catalogue(0)))
    assert list(alike([describe(pixels)])) == []
    assert list(alike([])) == []


def plainly_described(image: Image.Image) -> bytes:
    """`describe`, as its docstring says it."""
    if max(image.size) >= 255:
        image = image.reduce(4 if max(image.size) >= 509 else 2)
    content = (np.asarray(image) < 220).any(axis=2)
    rows = np.flatnonzero(content.mean(axis=1) > 0.01)
    columns = np.flatnonzero(content.mean(axis=0) > 0.01)
    box = (0, 0, *image.size)
    if rows.size and columns.size:
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    size = np.array([box[3] - box[1], box[2] - box[0]], "<u2")
    grey, small = image.convert("L"), Image.Resampling.BILINEAR
    views = [grey.resize((17, 16), small, box=area) for area in (None, box)]
    return size.tobytes() + b"".join(view.tobytes() for view in views)


@pytest.mark.parametrize("size", [(1, 1), (3, 250), (100, 100), (200, 399), (400, 401), (611, 40)])
def test_the_descriptor_is_as_described(size: tuple[int, int]):
    """Also where exactly 1 % of a row is content, and where the unused fourth byte is not white."""
    rng = np.random.default_rng(0)
    for share in (0, 0.005, 0.01, 0.02, 0.5):
        pixels = np.full((*size, 3), 255, np.uint8)
        pixels[rng.random(pixels.shape) < share] = rng.integers(200, 240)
        pixels[: size[0] // 4] = 255
        pixels[-1, : size[1] // 100] = 0
        image = Image.fromarray(pixels)
        seen = Image.new("RGBA", image.size, (0, 0, 0, 0))
        seen.paste(image)
        seen.putalpha(0)
        for shown in (image, seen.convert("RGB")):
            assert looks.describe_image(shown) == plainly_described(shown)


def test_blocks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch):
    pictures = [catalogue(s) for s in range(15)]
    pictures += [jpeg(p, 60) for p in pictures] + [margin(p, 20, 9) for p in pictures[:8]]
    described = [describe(p) for p in pictures]
    whole = {frozenset(pair) for pair in alike(described)}
    monkeypatch.setattr(looks, "_BLOCK", 4)
    pairs = list(alike(described))
    assert {frozenset(pair) for pair in pairs} == whole
    assert len(pairs) == len(whole), "each pair once"
    assert len(whole) >= 25
    assert all(i != j for i, j in pairs)


def test_hashing_brings_up_every_pair_that_compares_alike():
    """Also those that are only just alike: versions of one picture, ever further from it."""
    pictures = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for noise in range(0, 60, 4):
            changed = catalogue(seed) + rng.normal(0, noise, (300, 240, 1))
            pictures.append(np.clip(changed, 0, 255).astype(np.uint8))
    described = [describe(p) for p in pictures]
    i, j = np.triu_indices(len(described), k=1)
    every = looks._Table([looks._read(described)]).same(i, j)
    found = set(alike(described))
    assert found == set(zip(i[every].tolist(), j[every].tolist(), strict=True))
    assert 100 < len(found) < 12 * 15 * 14 / 2
