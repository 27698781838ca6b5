"""The task `windows` of scripts/scale.py: where a batch is read, and how well it is mixed."""

import argparse
import time
from typing import Any

import numpy as np

from jaxgear.data.sampling import Order, Sampling, Shards, shards_of

STEPS = 300  # batches that are looked at, from the middle of an epoch


def windows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of each order: shards that a host reads from in a batch, the part of its reads in a window
    that lie in the row after one read before, and the seconds to find a batch.
    """
    from jaxgear.data.dataset import open_dataset

    data = open_dataset(f"tfds:gear@{arguments.folder}", size=1, seed=0, say=lambda line: None)
    start = time.perf_counter()
    shards = shards_of(data.training_records(), data.folder)
    figures = {"pictures": len(shards.images), "shards": len(shards.lengths)}
    figures["seconds_to_know_shards"] = round(time.perf_counter() - start, 2)
    whole = Sampling(), Sampling(shards=shards, window=arguments.window)
    for name, sampling in zip(("whole", "windows"), whole, strict=True):
        order = sampling.order(len(shards.images), 0, 1, arguments.batch_size)
        for hosts in (1, arguments.hosts):
            figures[f"{name}_{hosts}_hosts"] = _read(order, shards, arguments, hosts)
    return figures


def _read(
    order: Order, shards: Shards, arguments: argparse.Namespace, hosts: int
) -> dict[str, float]:
    images, batch = len(shards.images), arguments.batch_size
    middle = images // batch // 2 * batch
    start = time.perf_counter()
    places = [(middle + step * batch + np.arange(batch)) % images for step in range(STEPS)]
    found = [order[place] for place in places]
    seconds = (time.perf_counter() - start) / STEPS
    place = np.empty(images, np.int32)
    place[shards.images] = np.arange(images, dtype=np.int32)
    own = place[np.stack(found)][:, : batch // hosts]  # of the first host
    shard = np.searchsorted(np.cumsum(shards.lengths), own, "right")
    rows = np.sort(own.reshape(-1))
    return {
        "shards_a_batch": round(np.mean([len(set(one)) for one in shard.tolist()]), 1),
        "next_to_another": round(float((np.diff(rows) == 1).mean()), 3),
        "milliseconds_a_batch": round(1000 * seconds, 2),
    }
