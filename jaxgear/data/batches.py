"""One split (train, validation or test) as batches on the device.

The images (or their features) move to the device once, as uint8; a batch is a gather there. The
order of a pass over all images is a pure function of (seed, pass), so a resumed run needs no saved
generator. An epoch is one pass, or a share of it: then the next epoch goes on where it ended.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Num

from jaxgear.data.folder import LazyPictures
from jaxgear.data.sampling import ONCE, Order, Sampling
from jaxgear.machine import devices


@no_type_check  # JAX also builds such trees from leaves that are not arrays
class Batch(struct.PyTreeNode):
    """The examples of one step. Padding fills the compiled shape and has weight 0."""

    image: Num[Array, "B ..."]  # images [B, S, S, 3], RGB 0 to 255, or their features
    label: Int[Array, " B"]
    weight: Float[Array, " B"]  # 1 for an example, 0 for padding
    index: Int[Array, " B"]  # position of the example in its split; see `Sampling` for copies
    epoch: Int[Array, ""]  # the pass over all images, from 1


@no_type_check
class Chunk(struct.PyTreeNode):
    """A chunk of steps: the examples of up to T consecutive batches of an epoch.

    Only the first `count` rows are valid.
    """

    index: Int[Array, "T B"]
    weight: Float[Array, "T B"]
    epoch: Int[Array, ""]
    count: Int[Array, ""]  # up to T


class Batches:
    """Shuffled epochs and ordered passes over images that fit in memory."""

    resident = True  # images are on the devices, so a compiled program can gather its batches

    def __init__(
        self,
        images: Num[np.ndarray, "N ..."] | LazyPictures,
        labels: Int[np.ndarray, " N"],
        batch_size: int,
        seed: int = 0,
        names: Sequence[str] = (),
        mesh: Mesh | None = None,
        sampling: Sampling = ONCE,
        share: float = 1.0,
    ):
        """Places the images on every device of `mesh` (None: all devices).

        An epoch has `share` of the batches of a pass (`epoch_steps`).

        Each batch is split over these devices. Do not write to `images` any more: on a CPU they
        may be shared, not copied. `names` of the images appear in messages.

        Raises:
            UsageError: the devices cannot share a batch equally.
        """
        self.mesh = devices.all_devices() if mesh is None else mesh
        devices.check_divides(batch_size, self.mesh, "--batch-size")
        # On a CPU `device_put` shares the memory; `jnp.asarray` would copy it.
        images = jax.device_put(images[:]) if self.mesh.size == 1 else images[:]
        self.images = devices.place(images, self.mesh)
        self.labels = devices.place(np.asarray(labels, np.int32), self.mesh)
        self.batch_size = batch_size
        self.seed = seed
        self.names = names
        self.sampling = sampling
        self.share = share

    @property
    def examples(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The name of image `index` in messages."""
        index %= len(self.labels)
        return self.names[index] if self.names else f"number {index}"

    def __len__(self) -> int:
        """Steps of one epoch."""
        return epoch_steps(self.examples, self.batch_size, self.share)

    def shuffled(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `first` on, to continue an interrupted one.

        A pass has all images, or those that `sampling` chooses. The last batch of a pass is padded,
        so no image is dropped.
        """
        for number, steps in self._passes(epoch, first):
            yield from self._in_order(self._order(number), number, steps)

    def chunks(self, epoch: int, first: int, most: int) -> Iterator[Chunk]:
        """The batches of `shuffled` as chunks of up to `most` steps, for programs that `take`."""
        for number, steps in self._passes(epoch, first):
            order = self._order(number)
            for start in steps[::most]:
                rows = [self._rows(order, step) for step in range(start, start + most)]
                index, weight = map(np.stack, zip(*rows, strict=True))
                count = min(most, steps.stop - start)
                yield Chunk(index, weight, np.int32(number), np.int32(count))

    def ordered(self) -> Iterator[Batch]:
        """Batches with every image once, in the order of the set, or in that of its shards."""
        return self._in_order(
            self.sampling.in_order(), 0, range(epoch_steps(self.examples, self.batch_size))
        )

    def _passes(self, epoch: int, first: int) -> Iterator[tuple[int, range]]:
        """The passes of an epoch, from its batch `first` on, and their steps in it: one or two."""
        whole = epoch_steps(self.examples, self.batch_size)
        start, stop = (epoch - 1) * len(self) + first, epoch * len(self)
        while start < stop:
            number, begun = divmod(start, whole)
            steps = range(begun, min(whole, begun + stop - start))
            yield number + 1, steps
            start += len(steps)

    def _order(self, number: int) -> Order:
        return self.sampling.order(self.examples, self.seed, number, self.batch_size)

    def _in_order(self, order: Order, number: int, steps: range) -> Iterator[Batch]:
        take_rows = _taker(self.mesh)
        for step in steps:
            index, weight = self._rows(order, step)
            yield take_rows(self.images, self.labels, index, weight, np.asarray(number, np.int32))

    def _rows(
        self, order: Order, step: int
    ) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        """The indices of the images in batch `step`, and their weights.

        Padding repeats real images from the front of the order, so that batch statistics come
        from real images only.
        """
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        index = order[position % self.examples].astype(np.int32)
        return index, (position < self.examples).astype(np.float32)


def epoch_steps(examples: int, batch_size: int, share: float = 1.0) -> int:
    """Steps of an epoch of `share` of a pass, at least one."""
    return max(1, round(share * -(-examples // batch_size)))


def in_batches(
    run: Callable[..., Array],
    rows: tuple[Num[np.ndarray, "N ..."] | LazyPictures, ...],
    size: int,
) -> Num[np.ndarray, "N ..."]:
    """`run(*rows)` for N >= 1 rows, computed in batches of `size`; padding is cut off again.

    The rows may be `LazyPictures`, which are then decoded batch by batch.
    """
    count = len(rows[0])
    index = np.arange(-(-count // size) * size) % count
    parts = [
        np.asarray(run(*(array[batch] for array in rows))) for batch in index.reshape(-1, size)
    ]
    return np.concatenate(parts)[:count]


@functools.cache
def _taker(mesh: Mesh):
    """`take` compiled for a mesh."""
    return jax.jit(functools.partial(take, mesh))


def take(
    mesh: Mesh,
    images: Num[Array, "N ..."],
    labels: Int[Array, " N"],
    index: Int[Array, " B"],
    weight: Float[Array, " B"],
    epoch: Int[Array, ""],
    examples: int | Int[Array, ""] | None = None,
) -> Batch:
    """The images at `index` as a batch, split over the devices of a mesh.

    Args:
        examples: number of images; None: all rows. More rows are padding.
    """
    place = index % (len(labels) if examples is None else examples)  # of a copy: its image
    rows = (images[place], labels[place], weight, index)
    if mesh.size > 1:
        rows = jax.lax.with_sharding_constraint(rows, devices.by_rows(mesh))
    return Batch(*rows, epoch)


def resized(images: Num[Array, "B ..."], scale: float) -> Num[Array, "B ..."]:
    """Images with `scale` times as many rows and columns, float32, antialiased.

    At 1 as they were, with their dtype.
    """
    if scale == 1:
        return images
    count, *sides, channels = images.shape
    shape = (count, *(round(scale * side) for side in sides), channels)
    return jax.image.resize(images.astype(jnp.float32), shape, "linear")
