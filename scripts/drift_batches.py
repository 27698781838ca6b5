"""Draws batches of new pictures and counts how many `jaxgear check --since RUN` calls different.

    python -m scripts.drift_batches RUN --folder held_out/ --folder outdoors/ [--size 50 100]

It draws batches of each size from each folder (with class folders or without) and prints how many
have a p-value below 0.05. About 1 in 20 batches of pictures like those of the run should.
"""

import argparse
import dataclasses

import numpy as np

from jaxgear.cli import exit_with
from jaxgear.data.folder import Folder, is_heap, read_folder, read_heap
from jaxgear.errors import DataError
from jaxgear.evaluation.drift import find_drift
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.paths import path_argument

LEVEL = 0.05


def batch(folder: Folder, size: int, seed: int) -> Folder:
    """`size` records of a folder, drawn at random."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(folder.records), size, replace=False))
    return dataclasses.replace(folder, records=tuple(folder.records[row] for row in rows))


def main(arguments: argparse.Namespace) -> None:
    """Prints a line for each folder and size."""
    run = FinishedRun.read(arguments.run)
    for root in arguments.folder:
        folder = read_heap(root) if is_heap(root) else read_folder(root, min_classes=1)
        for size in arguments.size:
            if size > len(folder.records):
                raise DataError(f"{root}: {len(folder.records)} pictures, fewer than {size}")
            found = [
                find_drift(run, batch(folder, size, seed), arguments.data)
                for seed in range(arguments.batches)
            ]
            p = np.array([np.nan if one.p_value is None else one.p_value for one in found])
            print(
                f"{root}: {(p < LEVEL).sum()} of {len(p)} batches of {size} below {LEVEL}; "
                f"p from {np.nanmin(p):.4f}, median {np.nanmedian(p):.4f}, to {np.nanmax(p):.4f}; "
                f"{np.mean([one.n for one in found]):.0f} compared with {found[0].reference}; "
                f"untested {np.isnan(p).sum()}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=path_argument)
    parser.add_argument("--folder", type=path_argument, action="append", required=True)
    parser.add_argument("--size", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--data", help="where the pictures of the run are now")
    arguments = parser.parse_args()
    exit_with(lambda: main(arguments))
