"""Write a folder, checked and split, as a TensorFlow Datasets set."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear prepare`."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, help="train on it with --data tfds:gear@OUT")
    parser.add_argument("--seed", type=int, default=0, help="decides the split")
    parser.add_argument("--on-bad", choices=["stop", "skip"], default="stop")


def run(arguments: argparse.Namespace) -> None:
    """Writes the set; the sides are those that a run with the same seed would have."""
    from jaxgear.data import tfds_gear
    from jaxgear.data.dataset import open_dataset

    dataset = open_dataset(
        str(arguments.folder), size=128, seed=arguments.seed, on_bad=arguments.on_bad
    )
    tfds_gear.prepare(dataset.folder, dataset.sides, dataset.groups, arguments.out)
    print(f"train on it with --data tfds:gear@{arguments.out}")
