"""The batches of `batches.Batches`, of pictures that do not fit in memory.

Grain's threads decode the next batches while the device works on one; memory is bounded by how far
they are ahead, whatever the number of pictures, but for the order of an epoch (8 bytes each: 0.8 GB
for 100 million).
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt8

from jaxgear.data.batches import Batch, Batches
from jaxgear.data.folder import LazyPictures
from jaxgear.errors import UsageError
from jaxgear.machine import devices

AHEAD = 4  # batches that are decoded, or being decoded, in advance
ON_DEVICE = 2  # of them on the device


class Stream(Batches):
    """Shuffled epochs and ordered passes over pictures that are decoded when their turn comes.

    Batches are those of `Batches` with the same seed, to the same bits. Of `hosts` processes each
    gets an equal part of every batch, its rows `host * B / hosts` and on, so that the parts in the
    order of hosts are the batch. Where an epoch stands is one integer, that of its next batch.
    """

    resident = False

    def __init__(
        self,
        images: LazyPictures | UInt8[np.ndarray, "N S S C"],
        labels: Int[np.ndarray, " N"],
        batch_size: int,
        seed: int = 0,
        names: Sequence[str] = (),
        mesh: Mesh | None = None,
        host: int | None = None,
        hosts: int | None = None,
    ):
        """Arguments as of `Batches`; `batch_size` is that of all hosts together.

        `host` of `hosts` are those of JAX, if not given.

        Raises:
            UsageError: the devices or hosts cannot share a batch equally.
        """
        self.mesh = devices.all_devices() if mesh is None else mesh
        host = jax.process_index() if host is None else host
        hosts = jax.process_count() if hosts is None else hosts
        devices.check_divides(batch_size, self.mesh, "--batch-size")
        if batch_size % hosts:
            raise UsageError(f"--batch-size {batch_size}: must be a multiple of {hosts} hosts")
        self.images = images
        self.labels = np.asarray(labels, np.int32)
        self.batch_size = batch_size
        self.seed = seed
        self.names = names
        self._part = slice(host * batch_size // hosts, (host + 1) * batch_size // hosts)

    def _in_order(self, order: np.ndarray, epoch: int, first: int = 0) -> Iterator[Batch]:
        steps = range(first, len(self))

        def batch(step: int) -> Batch:
            index, weight = self._rows(order, step)
            index, weight = index[self._part], weight[self._part]
            images = np.stack([self.images[int(row)] for row in index])
            return Batch(images, self.labels[index], weight, index, epoch)

        options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=AHEAD)
        decoded = iter(grain.MapDataset.source(steps).map(batch).to_iter_dataset(options))
        sent: deque[Batch] = deque()
        for one in decoded:
            # Returns before the copies are made.
            rows = devices.place_rows((one.image, one.label, one.weight, one.index), self.mesh)
            sent.append(Batch(*rows, devices.place(np.int32(epoch), self.mesh)))
            if len(sent) > ON_DEVICE:
                yield sent.popleft()
        yield from sent
