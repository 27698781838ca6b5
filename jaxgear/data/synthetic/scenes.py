"""Backgrounds of drawn objects: studio, mountain scenery, scattered things."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from jaxgear.data.synthetic.pen import Colour


def _random_colour(rng: np.random.Generator, low: float = 0.2, high: float = 0.95) -> Colour:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(low, high))
    return tuple(int(255 * c) for c in rgb)


def _gradient(
    rng: np.random.Generator, top: np.ndarray, foot: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """A vertical gradient between two colours [3], a little noisy."""
    rows = np.linspace(top, foot, 8)[:, None] + rng.normal(0, 3, (8, 6, 1))  # [8, 6, 3]
    image = Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8))
    return image.resize(size, Image.Resampling.BILINEAR)


def plain(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """White, as in catalogues; at times a soft studio tint."""
    if rng.random() < 0.8:
        level = int(rng.choice([255, rng.integers(240, 256)]))
        return Image.new("RGB", (width, height), (level, level, level))
    base = np.array(_random_colour(rng, 0.5, 0.98), float) * 0.5 + 120
    return _gradient(rng, base, base * rng.uniform(0.75, 1.05), (width, height))


def scenery(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Sky, two or three ridges and speckled ground, in random colours."""
    sky = np.array([rng.uniform(90, 200), rng.uniform(130, 215), rng.uniform(170, 250)])
    image = _gradient(rng, sky, sky * 0.4 + 150, (width, height))
    pen = ImageDraw.Draw(image)
    tint = np.array(_random_colour(rng, 0.3, 0.7), float)
    for k, level in enumerate(np.sort(rng.uniform(0.2, 0.75, int(rng.integers(2, 4))))):
        x = np.linspace(0, width, 12)
        y = height * (level + rng.normal(0, 0.05, 12) + 0.04 * rng.normal(0, 1, 12).cumsum() * 0.6)
        fade = 0.65 - 0.2 * k
        colour = tuple(int(v) for v in np.clip(tint * (1 - fade) + sky * fade - 15 * k, 0, 255))
        outline = [(0, height), *zip(x.tolist(), y.tolist(), strict=True), (width, height)]
        pen.polygon(outline, fill=colour)
        if rng.random() < 0.4:  # snow on the crest
            crest = list(zip(x.tolist(), y.tolist(), strict=True))
            pen.line(crest, fill=(240, 243, 248), width=max(1, height // 40))
    ground = int(height * rng.uniform(0.65, 0.92))
    grain = rng.normal(0, 22, (max(2, (height - ground) // 3), max(2, width // 3), 1))
    earth = np.array(_random_colour(rng, 0.25, 0.8), float) + grain
    patch = Image.fromarray(np.clip(earth, 0, 255).astype(np.uint8))
    image.paste(patch.resize((width, height - ground), Image.Resampling.BILINEAR), (0, ground))
    return image


def clutter(image: Image.Image, rng: np.random.Generator) -> None:
    """Draws one to four scattered things on `image` (RGB): sticks, discs, labels, pebbles."""
    pen = ImageDraw.Draw(image)
    side = max(image.size)
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        w, h = rng.uniform(0.03, 0.16, 2) * side
        colour = _random_colour(rng)
        style = rng.integers(4)
        if style == 0:
            reach = rng.uniform(-0.4, 0.4, 2) * side
            pen.line(
                (x, y, x + reach[0], y + reach[1]),
                colour,
                max(2, int(rng.uniform(0.012, 0.04) * side)),
            )
        elif style == 1:
            pen.ellipse((x - w, y - h, x + w, y + h), fill=colour)
        elif style == 2:
            pen.rectangle((x - w, y - h / 2, x + w, y + h / 2), fill=colour)
            for row in range(2):
                at = y - h / 4 + row * h / 2
                pen.line((x - w * 0.7, at, x + w * 0.6, at), fill=(60, 60, 60), width=1)
        else:
            corners = rng.uniform(-1, 1, (3, 2)) * [w * 1.4, h * 1.4] + [x, y]
            pen.polygon(corners.ravel().tolist(), fill=colour)
