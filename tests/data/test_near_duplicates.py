"""Images that must, and that must not, count as the same photograph."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import sparse

from jaxgear.data.images.descriptor import describe, describe_image
from jaxgear.data.splits import near_duplicates
from jaxgear.data.splits.near_duplicates import groups


def catalogue(seed: int, colour: tuple[int, int, int] = (30, 60, 160)) -> np.ndarray:
    """A catalogue image: an object of random outline and detail on white, u8 [300, 240, 3]."""
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
    return groups_of(describe(a), describe(b)) == 1


def groups_of(*described: bytes) -> int:
    """The number of groups."""
    return len(set(groups(described).tolist()))


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
    assert groups_of(*(describe(catalogue(s)) for s in range(60))) == 60


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
    assert groups_of(*described) == len(described)


def test_a_mirror_image_is_another_picture():
    assert not any(same(catalogue(s), catalogue(s)[:, ::-1].copy()) for s in range(10))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_any_size_can_be_described(size: tuple[int, int]):
    pixels = np.zeros((*size, 3), np.uint8)
    assert len(describe(pixels)) == len(describe(catalogue(0)))
    assert groups_of(describe(pixels)) == 1
    assert groups_of() == 0


def plainly_described(image: Image.Image) -> bytes:
    """`describe`, reimplemented from its docstring."""
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
            assert describe_image(shown) == plainly_described(shown)


def partition(numbers: np.ndarray) -> set[frozenset[int]]:
    """Groups as sets of positions, whatever their numbers are."""
    return {frozenset(np.flatnonzero(numbers == n).tolist()) for n in np.unique(numbers)}


def test_blocks_do_not_change_the_groups(monkeypatch: pytest.MonkeyPatch):
    pictures = [catalogue(s) for s in range(15)]
    pictures += [jpeg(p, 60) for p in pictures] + [margin(p, 20, 9) for p in pictures[:8]]
    described = [describe(p) for p in pictures]
    whole = partition(groups(described))
    monkeypatch.setattr(near_duplicates, "_BLOCK", 4)
    assert partition(groups(described)) == whole
    assert 15 <= len(whole) <= 18


def noisy(seeds: range, levels: range, size: tuple[int, int] = (240, 300)) -> list[bytes]:
    """Versions of some images, with increasing distance."""
    described = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        picture = np.asarray(Image.fromarray(catalogue(seed)).resize(size))
        for noise in levels:
            changed = picture + rng.normal(0, noise, (*picture.shape[:2], 1))
            described.append(describe(np.clip(changed, 0, 255).astype(np.uint8)))
    return described


def every_pair(described: list[bytes]) -> set[frozenset[int]]:
    """The groups after comparing every pair of images."""
    i, j = np.triu_indices(len(described), k=1)
    same = near_duplicates.read(described)[0].same(i, j)
    size = (len(described), len(described))
    links = sparse.coo_array((np.ones(same.sum()), (i[same], j[same])), size)
    return partition(sparse.csgraph.connected_components(links, directed=False)[1])


def test_hashing_brings_up_all_that_compares_alike():
    """Also near-duplicates just above the limits."""
    described = noisy(range(12), range(0, 60, 4), (72, 90))
    expected = every_pair(described)
    assert partition(groups(described)) == expected
    assert 12 < len(expected) < 12 * 15


@pytest.mark.parametrize("kinds", [1, 3])
def test_many_that_share_their_keys_are_grouped_as_if_all_were_compared(kinds: int):
    described = noisy(range(kinds), range(0, 300 // kinds // 30), (96, 120)) * 30
    order = np.random.default_rng(0).permutation(len(described))
    described = [described[place] for place in order]
    assert partition(groups(described)) == every_pair(described)


def test_comparisons_grow_with_the_number_of_look_alikes(monkeypatch: pytest.MonkeyPatch):
    """16 times as many images take 16 times as long."""
    compared = 0
    real = near_duplicates.Features.same

    def counting(self, i, j):
        nonlocal compared
        compared += len(i)
        return real(self, i, j)

    monkeypatch.setattr(near_duplicates.Features, "same", counting)
    # Threads compare pairs that another one is about to join, more or fewer by chance.
    monkeypatch.setattr(near_duplicates.os, "cpu_count", lambda: 1)
    described = noisy(range(1), range(1, 21), (96, 120))
    each = {}
    for count in (100, 1600):
        compared = 0
        assert groups_of(*(described * (count // 20))) <= 20
        each[count] = compared / count
    assert each[1600] < 1.2 * each[100] + 1, each
