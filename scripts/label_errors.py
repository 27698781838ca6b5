"""Puts wrong labels into a folder's records, and counts how many `jaxgear clean` lists early.

    python -m scripts.label_errors FOLDER [--share 0.02] [--seeds 5]

For each seed it draws a share of the pictures (N) and gives each another class at random. It
prints how many of the N are among the first N and the first 2 N rows of the list, all kinds
counted, how many the confident joint holds, and the seconds that one list takes. The files of the
folder are not changed.
"""

import argparse
import dataclasses
import time

import numpy as np

from jaxgear.cli import exit_with
from jaxgear.data.folder import Folder
from jaxgear.data.sources import read_source
from jaxgear.errors import UsageError
from jaxgear.evaluation.clean import find_suspicious
from jaxgear.models.pretrained import backbone_of


def with_wrong_labels(folder: Folder, share: float, seed: int) -> tuple[Folder, set[str]]:
    """The folder with other labels for a share of its records, and their paths."""
    rng = np.random.default_rng(seed)
    classes = len(folder.classes)
    rows = rng.choice(len(folder.records), round(share * len(folder.records)), replace=False)
    records = list(folder.records)
    for row, step in zip(rows, rng.integers(1, classes, len(rows)), strict=True):
        label = (records[row].label + int(step)) % classes
        records[row] = dataclasses.replace(records[row], label=label)
    return dataclasses.replace(folder, records=tuple(records)), {records[r].path for r in rows}


def main(arguments: argparse.Namespace) -> None:
    """Prints a line for each seed, and the mean."""
    if not 0 < arguments.share < 1 or arguments.seeds < 1:
        raise UsageError("--share is between 0 and 1, --seeds at least 1")
    backbone = backbone_of(arguments.weights)
    start = time.monotonic()
    folder = read_source(arguments.folder, arguments.image_size)
    clean = find_suspicious(folder, backbone, arguments.image_size)
    print(
        f"as it is: {len(folder.records)} pictures, {clean.counts()}, "
        f"{clean.estimated:.1f} wrong labels estimated, {time.monotonic() - start:.0f} s"
    )
    shares = []
    for seed in range(arguments.seeds):
        changed, wrong = with_wrong_labels(folder, arguments.share, seed)
        start = time.monotonic()
        found = find_suspicious(changed, backbone, arguments.image_size)
        seconds = time.monotonic() - start
        paths = [suspicion.record.path for suspicion in found.suspicions]
        sure = {s.record.path for s in found.suspicions if s.confident}
        first, twice = (len(wrong & set(paths[: k * len(wrong)])) / len(wrong) for k in (1, 2))
        shares.append((first, twice, len(wrong & sure) / len(wrong)))
        print(
            f"seed {seed}: {len(wrong)} wrong; in the first N {first:.3f}, in the first 2 N "
            f"{twice:.3f}, in the confident joint {shares[-1][2]:.3f}; {found.estimated:.1f} "
            f"estimated; {found.counts()}; {seconds:.0f} s",
            flush=True,
        )
    first, twice, sure = np.mean(shares, axis=0)
    print(f"mean: first N {first:.3f}, first 2 N {twice:.3f}, confident joint {sure:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--weights", default="")
    parser.add_argument("--image-size", type=int, default=128)
    arguments = parser.parse_args()
    exit_with(lambda: main(arguments))
