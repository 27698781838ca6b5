"""Foreground masks of catalogue pictures: what is the object, and what the white behind it.

A mask is an opacity, u8 [H, W]: 255 the object, 0 the background, in between its soft edge. A
picture is then object + (255 - mask) of white, so that `picture - (1 - mask) * white` is the object
alone, its edge included: pasted on anything, no white fringe comes along.

numpy and Pillow alone. White is told from white by where it is: what touches the border through
white is background; enclosed white is background where it is large and as pure and flat as paper.
"""

from dataclasses import replace

import numpy as np
import scipy  # loads ndimage when it is first used
from jaxtyping import Bool, UInt8

from jaxgear.cache import CacheChoice
from jaxgear.data.dataset import Split
from jaxgear.data.folder import Folder, LazyPictures, MaskCache
from jaxgear.data.images import letterbox, load_rgba

VERSION = 1  # of the rule: raise it whenever a picture would get another mask

NEAR_WHITE = (5, 14)  # how far below white, of 255, a background may be: as its border is
PURE = 5  # mean of a hole below white; flat: its standard deviation at most as much
HOLE = 0.0008  # of the picture's area: smaller enclosed white is a highlight
RING = 6  # pixels that JPEG's rings reach from an edge; they are at most NEAR_WHITE[1] deep
EDGE = 70  # how far below white the object is beside a ring
ISLAND = 0.0006  # likewise: a smaller object is a ring of a JPEG, or dust
_SQUARE = np.ones((3, 3), bool)
LEAK = 0.004  # of the area of the frame that a mask must keep at least, else there is none


def cutout(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W"]:
    """The mask of one picture (as `load_rgba` gives it) at its own size.

    Transparency is the mask where the file has any. A picture whose border is not white, or that
    has nothing but white, is a photograph with its own background: all of it is object, 255.
    """
    opacity = rgba[..., 3]
    if opacity.min() < 128:
        return opacity
    below = 255 - rgba[..., :3].min(axis=-1)  # [H, W], 0 is white
    border = np.concatenate([below[0], below[-1], below[:, 0], below[:, -1]])
    border = border[border <= NEAR_WHITE[1]]
    if len(border) < sum(below.shape):  # half of it
        return np.full(below.shape, 255, np.uint8)
    white = below <= np.clip(np.quantile(border, 0.9) + 2, *NEAR_WHITE)
    ground = _background(white, below)
    if 1 - ground.mean() < LEAK:
        return np.full(white.shape, 255, np.uint8)
    return _soft(ground, below)


def with_masks(split: Split, folder: Folder, *, cache: CacheChoice = "user") -> Split:
    """`split` with the mask of each picture as a fourth channel, made when it is asked for.

    Masks are letterboxed as their pixels are; the cache keeps them, as one takes longer to make
    than a picture to decode.
    """
    size = split.images.shape[1]
    store = MaskCache(cache, size, VERSION, outside=folder.root)

    def one(row: int) -> UInt8[np.ndarray, "S S 4"]:
        record = split.records[row]
        key = folder.cache_key(record)
        mask = store.get(key)
        if mask is None:
            mask = letterboxed(cutout(load_rgba(folder.read(record), record.path)), size)
            store.put(key, mask)
        return np.dstack([split.images[row], mask])

    return replace(split, images=LazyPictures((len(split.records), size, size, 4), one))


def letterboxed(mask: UInt8[np.ndarray, "H W"], size: int) -> UInt8[np.ndarray, "S S"]:
    """A mask as `letterbox` places its picture; the bars are background."""
    # White is opaque to `letterbox`, and a mask wants its bars at 0.
    inverse = np.repeat(255 - mask[..., None], 3, axis=-1)
    return 255 - letterbox(inverse, size)[..., 0]


def _background(
    white: Bool[np.ndarray, "H W"], below: UInt8[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """White that touches the border, and holes."""
    padded = np.pad(white, 1, constant_values=True)
    # A white object whose outline is broken for a pixel or two stays whole: what is reached only
    # through such a gap is not background.
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
    # The rings of a JPEG beside a dark edge are background; a white object has no such edge.
    ring = (below <= NEAR_WHITE[1]) & (_highest(below, RING) >= EDGE)
    for _ in range(RING):
        ground = ground | (scipy.ndimage.binary_dilation(ground, _SQUARE) & ring)
    labels, count = scipy.ndimage.label(~ground)
    island = np.bincount(labels.ravel(), minlength=count + 1) < ISLAND * white.size
    return ground | island[labels]


def _soft(
    ground: Bool[np.ndarray, "H W"], below: UInt8[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W"]:
    """Opacity: at the edge, how far a pixel is from white for how far the object beside it is."""
    share = np.clip(1.1 * below / np.maximum(_highest(below, 2), 1), 0, 1)
    edge = scipy.ndimage.binary_dilation(ground, _SQUARE, iterations=2) & ~ground
    opacity = np.where(ground, 0, np.where(edge, share, 1))
    return np.round(255 * opacity).astype(np.uint8)


def _highest(values: UInt8[np.ndarray, "H W"], reach: int) -> UInt8[np.ndarray, "H W"]:
    """The largest value within `reach` pixels in both directions."""
    return scipy.ndimage.maximum_filter(values, 2 * reach + 1, mode="constant")
