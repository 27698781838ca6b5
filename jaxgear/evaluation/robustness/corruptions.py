"""Common corruptions of images, u8 [H, W, 3], at five severities (Hendrycks & Dietterich 2019).

These are the families that product and phone photographs suffer from, and scale, rotation and
occlusion. Strengths are fractions of the image's side, so they mean the same at any size. Random
choices come from `rng`.
"""

import io
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

Corruption = Callable[[UInt8[np.ndarray, "H W 3"], int, np.random.Generator], np.ndarray]

SEVERITIES = (1, 2, 3, 4, 5)
WHITE = (255, 255, 255)


def blur(image, severity, rng):
    """Gaussian blur."""
    radius = (0.006, 0.01, 0.016, 0.024, 0.035)[severity - 1] * max(image.shape)
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noise(image, severity, rng):
    """Gaussian noise, of the same spread in each channel."""
    spread = (0.04, 0.08, 0.12, 0.18, 0.26)[severity - 1] * 255
    return _bytes(image + rng.normal(0, spread, image.shape))


def brightness(image, severity, rng):
    """Darker or brighter at random. White stays white when brighter, objects do not."""
    factor = (1.2, 1.45, 1.75, 2.2, 2.8)[severity - 1]
    return _bytes(image * (factor if rng.random() < 0.5 else 1 / factor))


def contrast(image, severity, rng):
    """Less contrast, around the mean."""
    mean = image.mean(axis=(0, 1))
    return _bytes(mean + (image - mean) * (0.75, 0.5, 0.35, 0.22, 0.12)[severity - 1])


def jpeg(image, severity, rng):
    """JPEG of low quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=(40, 25, 15, 9, 5)[severity - 1])
    return np.asarray(Image.open(file))


def pixelate(image, severity, rng):
    """Fewer, larger pixels."""
    height, width = image.shape[:2]
    share = (0.6, 0.42, 0.3, 0.2, 0.13)[severity - 1]
    few = max(1, round(width * share)), max(1, round(height * share))
    small = Image.fromarray(image).resize(few, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def scale(image, severity, rng):
    """The image smaller in its frame, on white."""
    return turned(image, 0, (0.8, 0.65, 0.5, 0.38, 0.28)[severity - 1])


def rotation(image, severity, rng):
    """Rotation, clockwise or not at random."""
    angle = (10, 20, 35, 60, 90)[severity - 1]
    return turned(image, angle if rng.random() < 0.5 else -angle, 1)


def occlusion(image, severity, rng):
    """A grey square over the image."""
    height, width = image.shape[:2]
    share = math.sqrt((0.05, 0.1, 0.18, 0.28, 0.4)[severity - 1])
    tall, wide = round(height * share), round(width * share)
    top, left = (int(rng.integers(0, room + 1)) for room in (height - tall, width - wide))
    out = image.copy()
    out[top : top + tall, left : left + wide] = rng.integers(40, 200)
    return out


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        *(blur, noise, brightness, contrast, jpeg, pixelate),
        *(scale, rotation, occlusion),
    )
}


def corrupt(
    images: UInt8[np.ndarray, "N H W 3"], name: str, severity: int, seed: int = 0
) -> UInt8[np.ndarray, "N H W 3"]:
    """All images, corrupted. The corruption of image i depends on (seed, i) alone."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity}: one of {SEVERITIES}")
    function = CORRUPTIONS[name]
    return np.stack(
        [
            function(image, severity, np.random.default_rng((seed, number)))
            for number, image in enumerate(images)
        ]
    )


def turned(
    image: UInt8[np.ndarray, "H W 3"], angle: float, size: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The image rotated by degrees and scaled around its centre, on white."""
    height, width = image.shape[:2]
    cos, sin = math.cos(math.radians(angle)) / size, math.sin(math.radians(angle)) / size
    x, y = (width - 1) / 2 + 0.5, (height - 1) / 2 + 0.5
    matrix = (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)
    bicubic = Image.Resampling.BICUBIC
    source = Image.fromarray(image)
    if size < 1:  # bicubic sampling alone would alias
        source = source.filter(ImageFilter.GaussianBlur(0.4 * (1 / size - 1)))
    result = source.transform(
        (width, height), Image.Transform.AFFINE, matrix, bicubic, fillcolor=WHITE
    )
    return np.asarray(result)


def _bytes(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
