"""One split of the set (train, validation or test) as batches on the device.

The pictures (or features of them) are moved to the device once, as uint8; a batch is a gather
there. Which pictures form batch i of epoch e is a pure function of (seed, epoch), so a resumed run
needs no saved generator.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import no_type_check

import jax
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Num

from jaxgear.data.folder import LazyPictures
from jaxgear.machine import devices


@no_type_check  # JAX also fills trees with things that are not arrays
class Batch(struct.PyTreeNode):
    """Pictures of one step. Padding fills the compiled shape; its weight 0 counts nowhere."""

    image: Num[Array, "B ..."]  # pictures [B, S, S, 3], RGB 0 to 255, or features of them
    label: Int[Array, " B"]
    weight: Float[Array, " B"]  # 1 for a picture, 0 for padding
    index: Int[Array, " B"]  # position in its split, names the picture
    epoch: Int[Array, ""]


@no_type_check
class Chunk(struct.PyTreeNode):
    """Which pictures form each of some batches of an epoch, `count` of them."""

    index: Int[Array, "T B"]
    weight: Float[Array, "T B"]
    epoch: Int[Array, ""]
    count: Int[Array, ""]  # up to T


class Batches:
    """Shuffled epochs and ordered passes over pictures that fit in memory."""

    resident = True  # pictures are on the devices: a program can take batches by itself

    def __init__(
        self,
        images: Num[np.ndarray, "N ..."] | LazyPictures,
        labels: Int[np.ndarray, " N"],
        batch_size: int,
        seed: int = 0,
        names: Sequence[str] = (),
        mesh: Mesh | None = None,
    ):
        """`images` must not be written to any more: on a CPU they may be shared and not copied.
        `names` of the pictures, for messages that speak of some of them.

        A batch is split over the devices of `mesh`, all there are if it is None; each has all
        pictures.

        Raises:
            UsageError: the devices cannot share a batch equally.
        """
        self.mesh = devices.all_devices() if mesh is None else mesh
        devices.check_divides(batch_size, self.mesh, "--batch-size")
        # On a CPU it then is the same memory (buffers.py), which `jnp.asarray` would copy.
        pictures = jax.device_put(images[:]) if self.mesh.size == 1 else images[:]
        self.images = devices.place(pictures, self.mesh)
        self.labels = devices.place(np.asarray(labels, np.int32), self.mesh)
        self.batch_size = batch_size
        self.seed = seed
        self.names = names

    @property
    def examples(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What to call picture `index` in a message."""
        return self.names[index] if self.names else f"number {index}"

    def __len__(self) -> int:
        """Steps of one epoch; the last batch is padded, no picture is dropped."""
        return -(-self.examples // self.batch_size)

    def shuffled(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Every picture once, in an order that depends on (seed, epoch) alone.

        From batch `first` on, where an epoch was interrupted.
        """
        return self._in_order(self._order(epoch), epoch, first)

    def chunks(self, epoch: int, first: int, most: int) -> Iterator[Chunk]:
        """The batches of `shuffled`, by up to `most`, for a program that makes them (`take`)."""
        order = self._order(epoch)
        for start in range(first, len(self), most):
            rows = [self._rows(order, step) for step in range(start, start + most)]
            index, weight = map(np.stack, zip(*rows, strict=True))
            count = min(most, len(self) - start)
            yield Chunk(index, weight, np.int32(epoch), np.int32(count))

    def ordered(self) -> Iterator[Batch]:
        """Every picture once, in the order of the set."""
        return self._in_order(np.arange(self.examples), epoch=0)

    def _order(self, epoch: int) -> Int[np.ndarray, " N"]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.examples)

    def _in_order(self, order: np.ndarray, epoch: int, first: int = 0) -> Iterator[Batch]:
        take_rows = _taker(self.mesh)
        for step in range(first, len(self)):
            index, weight = self._rows(order, step)
            yield take_rows(self.images, self.labels, index, weight, np.asarray(epoch, np.int32))

    def _rows(
        self, order: Int[np.ndarray, " N"], step: int
    ) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        """Which pictures are in batch `step`, and their weights.

        Padding is real pictures from the front of the order: batch statistics stay those of
        pictures.
        """
        place = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        index = order[place % self.examples].astype(np.int32)
        return index, (place < self.examples).astype(np.float32)


def in_batches(
    run: Callable[..., Array], rows: tuple[Num[np.ndarray, "N ..."], ...], size: int
) -> Num[np.ndarray, "N ..."]:
    """`run(*rows)` of N >= 1 rows, in batches of one size: the last one is filled up with others.

    The rows may be `LazyPictures`: each batch is asked for when its turn comes.
    """
    count = len(rows[0])
    places = np.arange(-(-count // size) * size) % count
    parts = [np.asarray(run(*(of[part] for of in rows))) for part in places.reshape(-1, size)]
    return np.concatenate(parts)[:count]


@functools.cache
def _taker(mesh: Mesh):
    """`take`, compiled for a mesh."""
    return jax.jit(functools.partial(take, mesh))


def take(
    mesh: Mesh,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    index: Int[Array, " B"],
    weight: Float[Array, " B"],
    epoch: Int[Array, ""],
) -> Batch:
    """The pictures at `index` as a batch, split over the devices of a mesh."""
    rows = (images[index], labels[index], weight, index)
    if mesh.size > 1:
        rows = jax.lax.with_sharding_constraint(rows, devices.by_rows(mesh))
    return Batch(*rows, epoch)
