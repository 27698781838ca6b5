"""Chooses the pictures whose labels would help most: `choose(network, folder, count)`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxgear.data.folder import Folder, Record
from jaxgear.evaluation.acquisition.ranking import rank, uncertainty
from jaxgear.evaluation.network_features import Network
from jaxgear.notebook.progress import bar

# Of many pictures only the most uncertain ones are compared with each other: this many, or so many
# for each picture to choose. It bounds the memory: 160 MB of features of a ResNet-50.
COMPARED, FOR_EACH = 10_000, 4
Block = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows [n], features [n, D], probs [n, K]


@dataclass(frozen=True)
class Choice:
    """A picture to label."""

    record: Record
    score: float  # of `rank`


def choose(network: Network, folder: Folder, count: int) -> list[Choice]:
    """At most `count` records of a folder, the best first. A bar shows those that have features.

    Args:
        folder: of `find_candidates`.

    Raises:
        DataError: a file changed since it was read.
        CheckpointError: the network's output is not finite.
    """
    records = folder.records
    if not records:
        return []
    most = max(COMPARED, FOR_EACH * count)
    rows, features, probs = most_uncertain(_blocks(network, folder), most)
    best, scores = rank(features, probs, count)
    return [
        Choice(records[rows[row]], float(score)) for row, score in zip(best, scores, strict=True)
    ]


def _blocks(network: Network, folder: Folder) -> Iterator[Block]:
    """Rows of the folder's records, their features and their probabilities."""
    done, total = 0, len(folder.records)
    with bar("features") as tick:
        for features, logits in network.blocks(folder, folder.records):
            yield np.arange(done, done + len(features)), features, network.bundle.probs(logits)
            done += len(features)
            tick(done, total)


def most_uncertain(blocks: Iterator[Block], most: int) -> Block:
    """The `most` rows of largest uncertainty, in the order in which they came.

    At most twice as many are in memory at once, and a block.
    """
    waiting: list[Block] = []
    held = 0
    for block in blocks:
        waiting.append(block)
        held += len(block[0])
        if held > 2 * most:
            waiting = [_cut(waiting, most)]
            held = most
    return _cut(waiting, most)


def _cut(blocks: list[Block], most: int) -> Block:
    rows, features, probs = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    kept = np.sort(np.argsort(-uncertainty(probs), kind="stable")[:most])
    return rows[kept], features[kept], probs[kept]
