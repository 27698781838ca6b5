"""Transforms of training images on the device: keys and images in, float32 [B, S, S, C] out.

transforms.py is where to start: it defines augmentations and chains them. paste.py pastes objects
on backgrounds. camera.py adds the effects of a camera.
"""

from jaxgear.data.augment.paste import Bank, backgrounds, outlier_exposure, scenes
from jaxgear.data.augment.transforms import (
    Augment,
    Mix,
    affine,
    chain,
    colour,
    cutmix,
    erase,
    flip,
    mixup,
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
    "cutmix",
    "erase",
    "flip",
    "mixup",
    "one_of",
    "one_view",
    "outlier_exposure",
    "scenes",
    "stream",
]
