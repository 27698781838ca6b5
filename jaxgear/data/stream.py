"""The batches of `batches.Batches`, of pictures that do not fit in memory.

Grain's threads decode the next batches while the device works on one; memory is bounded by how far
they are ahead, whatever the number of pictures, but for the order of an epoch (8 bytes each: 0.8 GB
for 100 million).
"""

import os
from collections import deque
from collections.abc import Iterator

import grain
import jax
import numpy as np
from jaxtyping import Int

from jaxgear.data.batches import Batch, Batches
from jaxgear.data.stored import StoredPictures
from jaxgear.errors import UsageError

AHEAD = 4  # batches that are decoded, or being decoded, in advance
ON_DEVICE = 2  # of them on the device


class Stream(Batches):
    """Shuffled epochs and ordered passes over pictures that are decoded when their turn comes.

    Batches are those of `Batches` with the same seed, to the same bits. Of `hosts` processes each
    gets an equal part of every batch, its rows `host * B / hosts` and on, so that the parts in the
    order of hosts are the batch. Where an epoch stands is one integer, that of its next batch.
    """

    def __init__(
        self,
        images: StoredPictures,
        labels: Int[np.ndarray, " N"],
        batch_size: int,
        seed: int = 0,
        names: tuple[str, ...] = (),
        *,
        host: int = 0,
        hosts: int = 1,
    ):
        """Arguments as of `Batches`; `batch_size` is that of all hosts together.

        Raises:
            UsageError: the hosts cannot share a batch equally.
        """
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
            return Batch(images, self.labels[index], weight, index, np.asarray(epoch, np.int32))

        options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=AHEAD)
        decoded = iter(grain.MapDataset.source(steps).map(batch).to_iter_dataset(options))
        sent: deque[Batch] = deque()
        for one in decoded:
            sent.append(jax.device_put(one))  # returns before the copy is made
            if len(sent) > ON_DEVICE:
                yield sent.popleft()
        yield from sent
