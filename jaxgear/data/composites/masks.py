"""Foreground masks of catalogue images: they separate the object from the white behind it.

A mask is an opacity, u8 [H, W]: 255 for the object, 0 for the background, in between at soft edges.
An image is then the object plus (1 - mask / 255) * white. So `image - (1 - mask / 255) * white` is
the premultiplied object with its edge, and leaves no white fringe when it is pasted.

White that is connected to the border is background. Enclosed white is background only if it is
large, and as pure and flat as paper.
"""

from dataclasses import replace

import numpy as np
import scipy  # loads ndimage when it is first used
from jaxtyping import Bool, UInt8

from jaxgear.data.dataset import Split
from jaxgear.data.folder import Folder, LazyPictures, MaskCache
from jaxgear.data.images import letterbox, load_rgba

VERSION = 1  # of the rule: raise it whenever the mask of an unchanged image would change

# Depth is the distance below white, 0 to 255.
NEAR_WHITE = (5, 14)  # range of the largest depth of background; the border's depth sets it
PURE = 5  # largest mean depth of a hole, and its largest standard deviation
HOLE = 0.0008  # of the image's area: smaller enclosed white is a highlight
RING = 6  # reach of JPEG ringing around an edge, in pixels; its depth is at most NEAR_WHITE[1]
EDGE = 70  # smallest depth of the object beside ringing
ISLAND = 0.0006  # of the image's area: a smaller object is JPEG ringing or dust
_SQUARE = np.ones((3, 3), bool)
LEAK = 0.004  # of the image's area: a smaller mask means that the background leaked into the object


def cutout(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W"]:
    """The mask of one image (from `load_rgba`) at full size.

    If the file has transparency, that is the mask. An image without a white border is a photograph
    with its own background: its mask is 255 everywhere. So is the mask of an all-white image.
    """
    opacity = rgba[..., 3]
    if opacity.min() < 128:
        return opacity
    below = 255 - rgba[..., :3].min(axis=-1)  # [H, W], 0 is white
    border = np.concatenate([below[0], below[-1], below[:, 0], below[:, -1]])
    border = border[border <= NEAR_WHITE[1]]
    if len(border) < sum(below.shape):  # less than half of the border is near white
        return np.full(below.shape, 255, np.uint8)
    white = below <= np.clip(np.quantile(border, 0.9) + 2, *NEAR_WHITE)
    ground = _background(white, below)
    if 1 - ground.mean() < LEAK:
        return np.full(white.shape, 255, np.uint8)
    return _soft(ground, below)


def with_masks(split: Split, folder: Folder) -> Split:
    """`split` with the mask of each image as a fourth channel, made on access.

    Masks are letterboxed like their images. The cache keeps them, because making a mask takes
    longer than decoding an image.
    """
    size = split.images.shape[1]
    store = MaskCache(size, VERSION, outside=folder.root)

    def masked(row: int) -> UInt8[np.ndarray, "S S 4"]:
        record = split.records[row]
        key = folder.cache_key(record)
        mask = store.get(key)
        if mask is None:
            mask = letterboxed(cutout(load_rgba(folder.read(record), record.path)), size)
            store.put(key, mask)
        return np.dstack([split.images[row], mask])

    return replace(split, images=LazyPictures((len(split.records), size, size, 4), masked))


def letterboxed(mask: UInt8[np.ndarray, "H W"], size: int) -> UInt8[np.ndarray, "S S"]:
    """A mask in the place where `letterbox` puts its image; the bars are background."""
    # `letterbox` makes bars of 255, and a mask needs bars of 0: invert before and after.
    inverse = np.repeat(255 - mask[..., None], 3, axis=-1)
    return 255 - letterbox(inverse, size)[..., 0]


def _background(
    white: Bool[np.ndarray, "H W"], below: UInt8[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """The background: white that is connected to the border, and holes."""
    padded = np.pad(white, 1, constant_values=True)
    # Background does not pass through gaps of one or two pixels, so a white object with such gaps
    # in its outline stays whole.
    wide = scipy.ndimage.binary_erosion(padded, _SQUARE, border_value=1)
    seed = np.zeros_like(padded)
    seed[0] = seed[-1] = seed[:, 0] = seed[:, -1] = True
    inner = scipy.ndimage.binary_propagation(seed & wide, mask=wide)
    ground = scipy.ndimage.binary_dilation(inner, _SQUARE) & padded
    ground = ground[1:-1, 1:-1]
    labels, count = scipy.ndimage.label(white & ~ground)
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count + 1)
    depth = below.ravel().astype(np.float64)
    mean = np.bincount(flat, depth, count + 1) / np.maximum(area, 1)
    square = np.bincount(flat, depth**2, count + 1) / np.maximum(area, 1)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    hole = (area >= HOLE * white.size) & (mean <= PURE) & (spread <= PURE)
    hole[0] = False
    ground = ground | hole[labels]
    # JPEG ringing beside a dark edge is background; a white object has no such edge.
    ring = (below <= NEAR_WHITE[1]) & (_highest(below, RING) >= EDGE)
    for _ in range(RING):
        ground = ground | (scipy.ndimage.binary_dilation(ground, _SQUARE) & ring)
    labels, count = scipy.ndimage.label(~ground)
    island = np.bincount(labels.ravel(), minlength=count + 1) < ISLAND * white.size
    return ground | island[labels]


def _soft(
    ground: Bool[np.ndarray, "H W"], below: UInt8[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W"]:
    """The opacity; at edges, the depth of a pixel relative to the deepest pixel beside it."""
    share = np.clip(1.1 * below / np.maximum(_highest(below, 2), 1), 0, 1)
    edge = scipy.ndimage.binary_dilation(ground, _SQUARE, iterations=2) & ~ground
    opacity = np.where(ground, 0, np.where(edge, share, 1))
    return np.round(255 * opacity).astype(np.uint8)


def _highest(values: UInt8[np.ndarray, "H W"], reach: int) -> UInt8[np.ndarray, "H W"]:
    """The largest value within `reach` pixels along both axes."""
    return scipy.ndimage.maximum_filter(values, 2 * reach + 1, mode="constant")
