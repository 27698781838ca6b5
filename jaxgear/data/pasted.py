"""Sides with pasted pictures in them, made once: to validate on, and to know what is no gear.

The views of an epoch are made inside the training step (backgrounds.py); these are fixed.
"""

import functools
import hashlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxgear.data.augment import Augment
from jaxgear.data.backgrounds import Bank, backgrounds, scenes
from jaxgear.data.cutout import with_masks
from jaxgear.data.dataset import Side
from jaxgear.data.folder import Folder, Record

BATCH = 32


def and_pasted(side: Side, folder: Folder, bank: Bank | None) -> Side:
    """`side`, followed by each of its pictures once more, on a background. Without a bank: `side`.

    A pasted picture's sha256 is that of its pixels.
    """
    if bank is None:
        return side
    images = views(backgrounds(bank, probability=1.0), with_masks(side, folder).images)
    records = tuple(
        replace(record, path=f"{record.path} (pasted)", sha256=_sha256(image))
        for record, image in zip(side.records, images, strict=True)
    )
    return Side(
        np.concatenate([side.images, images]),
        np.concatenate([side.labels, side.labels]),
        side.records + records,
    )


def scene_side(bank: Bank, size: int, count: int, seed: int = 0) -> Side:
    """`count` pictures of backgrounds alone; their label, 0, means nothing."""
    images = views(scenes(bank), np.zeros((count, size, size, 3), np.uint8), seed)
    records = tuple(
        Record(f"scene {number}", _sha256(image), 0, None, size, size, b"")
        for number, image in enumerate(images)
    )
    return Side(images, np.zeros(count, np.int32), records)


def views(
    augment: Augment, images: UInt8[np.ndarray, "N S S C"], seed: int = 0
) -> UInt8[np.ndarray, "N S S 3"]:
    """One augmented view of each picture, the same for the same seed."""
    keys = jax.random.split(jax.random.key(seed), len(images))
    step = jax.jit(functools.partial(_view, augment))
    rows = np.resize(np.arange(len(images)), -(-len(images) // BATCH) * BATCH)  # one shape
    parts = [np.asarray(step(keys[part], images[part])) for part in rows.reshape(-1, BATCH)]
    return np.concatenate(parts)[: len(images)]


def _view(augment, keys, images):
    changed = augment(keys, images.astype(jnp.float32))
    return jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)


def _sha256(image: UInt8[np.ndarray, "S S 3"]) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
