"""Splits with pasted pictures in them: to validate on, and to know what is no gear.

The views of an epoch are made inside the training step (backgrounds.py); these are the same each
time that they are asked for.
"""

import functools
import hashlib
import os
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxgear.data.augment import Augment, Bank, backgrounds, scenes
from jaxgear.data.composites.masks import VERSION, with_masks
from jaxgear.data.dataset import Split
from jaxgear.data.folder import Folder, LazyPictures, Record

BATCH = 32
KEPT = 2 * (os.cpu_count() or 1)  # batches of views: each thread of a stream may be in another


def and_pasted(split: Split, folder: Folder, bank: Bank | None) -> Split:
    """`split`, followed by each of its pictures once more, on a background, made when it is asked
    for. Without a bank: `split`.

    A pasted picture's sha256 is of what it is made of: no picture is read for it.
    """
    if bank is None:
        return split
    count = len(split.records)
    masked = with_masks(split, folder).images
    augment = backgrounds(bank, probability=1.0)
    pasted = views(augment, masked)
    shape = jax.ShapeDtypeStruct((BATCH, *masked.shape[1:]), np.uint8)
    program = _view.trace(augment, jax.random.split(jax.random.key(0), BATCH), shape)
    recipe = hashlib.sha256(f"{VERSION} {program_sha256(program)} {count}".encode())
    for record in split.records:  # objects of others are in a view as well
        recipe.update(record.sha256.encode())
    records = tuple(
        replace(
            record,
            path=f"{record.path} (pasted)",
            sha256=_sha256(recipe.digest() + number.to_bytes(8, "little")),
        )
        for number, record in enumerate(split.records)
    )
    return Split(
        LazyPictures(
            (2 * count, *pasted.shape[1:]),
            lambda row: split.images[row] if row < count else pasted[row - count],
        ),
        np.concatenate([split.labels, split.labels]),
        split.records + records,
    )


def scene_split(bank: Bank, size: int, count: int, seed: int = 0) -> Split:
    """`count` pictures of backgrounds alone; their label, 0, means nothing."""
    images = views(scenes(bank), np.zeros((count, size, size, 3), np.uint8), seed)[:]
    records = tuple(
        Record(f"scene {number}", _sha256(image.tobytes()), 0, None, size, size, b"")
        for number, image in enumerate(images)
    )
    return Split(images, np.zeros(count, np.int32), records)


def views(
    augment: Augment, images: UInt8[np.ndarray, "N S S C"] | LazyPictures, seed: int = 0
) -> LazyPictures:
    """One augmented view of each picture, [N, S, S, 3], the same for the same seed.

    Views are made `BATCH` at a time, as neighbours in a batch may be in each other's; the last few
    batches are kept, so that a pass in order makes each once.
    """
    keys = jax.random.split(jax.random.key(seed), len(images))

    @functools.lru_cache(maxsize=KEPT)
    def batch(number: int) -> UInt8[np.ndarray, "B S S 3"]:
        rows = np.arange(number * BATCH, (number + 1) * BATCH) % len(images)  # one shape
        return np.asarray(_view(augment, keys[rows], images[rows]))

    lock = threading.Lock()  # threads that want the same batch wait for the one that makes it

    def one(row: int) -> UInt8[np.ndarray, "S S 3"]:
        with lock:
            return batch(row // BATCH)[row % BATCH]

    return LazyPictures((*images.shape[:3], 3), one)


@functools.partial(jax.jit, static_argnames="augment")
def _view(augment, keys, images):
    changed = augment(keys, images.astype(jnp.float32))
    return jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)


def program_sha256(program: jax.stages.Traced) -> str:
    """A hash of a program that makes views and of the arrays in it, backgrounds say: another
    augmentation has another one.
    """
    digest = hashlib.sha256(program.lower().as_text().encode())
    for constant in program.jaxpr.consts:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
