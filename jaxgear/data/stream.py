"""The batches of `batches.Batches` for images that do not fit in memory.

Grain's threads decode the next batches while the device works on the current one. Memory is bounded
by the number of prefetched batches.
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
from jaxgear.data.sampling import ONCE, Order, Sampling
from jaxgear.errors import UsageError
from jaxgear.machine import devices

AHEAD = 4  # batches decoded in advance
ON_DEVICE = 2  # batches on the device in advance


class Stream(Batches):
    """Shuffled epochs and ordered passes over images that are decoded batch by batch.

    With the same seed, batches are bit for bit those of `Batches`. Each of `hosts` processes gets
    an equal part of every batch: the B / hosts rows from `host * B / hosts` on. The position in an
    epoch is one integer: the number of the next batch.
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
        sampling: Sampling = ONCE,
        share: float = 1.0,
        host: int | None = None,
        hosts: int | None = None,
    ):
        """Takes the arguments of `Batches`; `batch_size` is the sum over all hosts.

        `host` and `hosts` default to JAX's process index and count.

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
        self.sampling = sampling
        self.share = share
        self._part = slice(host * batch_size // hosts, (host + 1) * batch_size // hosts)

    def _in_order(self, order: Order, number: int, steps: range) -> Iterator[Batch]:
        def decode(step: int) -> Batch:
            index, weight = self._rows(order, step)
            index, weight = index[self._part], weight[self._part]
            place = index % len(self.labels)  # of a copy: its image
            images = np.stack([self.images[int(row)] for row in place])
            return Batch(images, self.labels[place], weight, index, number)

        options = grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=AHEAD)
        decoded = iter(grain.MapDataset.source(steps).map(decode).to_iter_dataset(options))
        sent: deque[Batch] = deque()
        for batch in decoded:
            # Asynchronous: returns before the data is copied.
            rows = (batch.image, batch.label, batch.weight, batch.index)
            rows = devices.place_rows(rows, self.mesh)
            sent.append(Batch(*rows, devices.place(np.int32(number), self.mesh)))
            if len(sent) > ON_DEVICE:
                yield sent.popleft()
        yield from sent
