"""Transforms of training images on the device: keys and images in, float32 [B, S, S, C] out.

transforms.py is where to start: what an augmentation is, and how they are chained. paste.py puts
objects on backgrounds; camera.py adds what a camera does to a scene.
"""

from jaxgear.data.augment.paste import Bank, backgrounds, outlier_exposure, scenes
from jaxgear.data.augment.transforms import (
    Augment,
    Mix,
    affine,
    chain,
    colour,
    flip,
    one_of,
    one_view,
    stream,
)

__all__ = [
    "Augment",
    "Bank",
    "Mix",
    "affine",
    "backgrounds",
    "chain",
    "colour",
    "flip",
    "one_of",
    "one_view",
    "outlier_exposure",
    "scenes",
    "stream",
]
