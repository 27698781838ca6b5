"""Splits with pasted images, for validation and for the threshold of no gear.

Views for training are made inside the training step (augment/paste.py) and differ in each epoch.
The views here are fixed.
"""

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxgear.data.augment import Augment, Bank, backgrounds, scenes
from jaxgear.data.composites.masks import VERSION, with_masks
from jaxgear.data.dataset import Split
from jaxgear.data.folder import Folder, LazyPictures, LazyRecords, Record, one_after_the_other

BATCH = 32
PASTED = " (pasted)"  # at the end of the path of a pasted view
KEPT = 2 * (os.cpu_count() or 1)  # cached batches of views: threads of a stream use different ones


def with_pasted(split: Split, folder: Folder, bank: Bank | None) -> Split:
    """`split` followed by a pasted view of each of its images, made on access.

    Without a bank: `split`. The sha256 of a pasted image covers its inputs (program, hashes, row),
    so no image has to be made for it.
    """
    if bank is None:
        return split
    count = len(split.records)
    masked = with_masks(split, folder).images
    pasted = views(_paste_all, bank, masked)
    program = _paste_all_sha256(bank.shape, masked.shape[1:])
    inputs = hashlib.sha256(f"{VERSION} {program} {count}".encode())
    inputs.update(np.asarray(bank).tobytes())
    for sha256 in split.sha256:  # a view also shows objects of other images
        inputs.update(sha256.encode())

    def record(row: int) -> Record:
        original = split.records[row]
        sha256 = _sha256(inputs.digest() + row.to_bytes(8, "little"))
        return replace(original, path=original.path + PASTED, sha256=sha256)

    records = one_after_the_other(split.records, LazyRecords(count, record))
    images = one_after_the_other(split.images, pasted)
    return Split(
        LazyPictures((2 * count, *pasted.shape[1:]), images),
        np.concatenate([split.labels, split.labels]),
        LazyRecords(2 * count, records),
    )


def is_pasted(path: str) -> bool:
    """Whether a record of `with_pasted` is a pasted view."""
    return path.endswith(PASTED)


def scene_split(bank: Bank, size: int, count: int, seed: int = 0) -> Split:
    """`count` images of backgrounds without objects; their label 0 is meaningless."""
    images = views(scenes, bank, np.zeros((count, size, size, 3), np.uint8), seed)[:]
    records = tuple(
        Record(f"scene {number}", _sha256(image.tobytes()), 0, None, size, size, b"")
        for number, image in enumerate(images)
    )
    return Split(images, np.zeros(count, np.int32), records)


def views(
    make: Callable[[Bank], Augment],
    bank: Bank,
    images: UInt8[np.ndarray, "N S S C"] | LazyPictures,
    seed: int = 0,
) -> LazyPictures:
    """One view of each image, [N, S, S, 3], by the augmentation `make(bank)` and the seed.

    `make` is a function of a module: JAX compiles it once for all banks of one shape. Views are
    made `BATCH` at a time, because a view may show its neighbour in the batch. The last `KEPT`
    batches are cached, so a pass in order makes each batch once.
    """
    keys = jax.random.split(jax.random.key(seed), len(images))

    @functools.lru_cache(maxsize=KEPT)
    def batch(number: int) -> UInt8[np.ndarray, "B S S 3"]:
        rows = np.arange(number * BATCH, (number + 1) * BATCH) % len(images)  # one shape
        return np.asarray(_view(make, bank, keys[rows], images[rows]))

    lock = threading.Lock()  # only one thread makes a batch; the others wait for it

    def view(row: int) -> UInt8[np.ndarray, "S S 3"]:
        with lock:
            return batch(row // BATCH)[row % BATCH]

    return LazyPictures((*images.shape[:3], 3), view)


@functools.partial(jax.jit, static_argnames="make")
def _view(make, bank, keys, images):
    changed = make(bank)(keys, images.astype(jnp.float32))
    return jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)


def _paste_all(bank: Bank) -> Augment:
    return backgrounds(bank, probability=1.0)


@functools.cache
def _paste_all_sha256(bank: tuple[int, ...], image: tuple[int, ...]) -> str:
    """A hash of the program that pastes images of one shape on a bank of one shape."""
    keys = jax.random.split(jax.random.key(0), BATCH)
    bank, images = (jax.ShapeDtypeStruct(shape, np.uint8) for shape in (bank, (BATCH, *image)))
    return program_sha256(_view.trace(_paste_all, bank, keys, images))


def program_sha256(program: jax.stages.Traced) -> str:
    """A hash of a program that makes views, and of its constant arrays such as backgrounds.

    Another augmentation gives another hash.
    """
    digest = hashlib.sha256(program.lower().as_text().encode())
    for constant in program.jaxpr.consts:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
