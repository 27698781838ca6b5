"""Measures how many boxes of gear the proposals of `predict --crops` find in photographs.

    python -m scripts.proposals RUN PHOTOGRAPHS BOXES.csv --half test --plot results/proposals.png

BOXES.csv has the columns photo, label, left, top, right, bottom (fractions). A box is found if a
proposal has an IoU of 0.5 with it. It prints recall by the number of proposals a photograph, for
the network's proposals, for a grid of boxes of several sizes, the largest first, and for random
boxes (mean of 20 draws), and the seconds a photograph. `--backgrounds PHOTOS` adds a line without
the photographs that a run with `--backgrounds PHOTOS` was trained on. Photographs with boxes are in
two halves, by a shuffle of their names with a fixed seed. Choose on the half `dev`.
"""

import argparse
import csv
import os
import random
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.composites import photographs
from jaxgear.data.images import load_rgb
from jaxgear.errors import DataError
from jaxgear.paths import path_argument
from jaxgear.prediction import Predictor
from jaxgear.prediction.proposals.boxes import found
from jaxgear.prediction.proposals.evidence import evidence_of
from jaxgear.prediction.proposals.propose import SHAPES, SIZES, propose

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
DRAWS = 20


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Boxes by photograph: [N, 4] left, top, right, bottom."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or {"photo", "left", "top", "right", "bottom"} - set(rows[0]):
        raise DataError(f"{path}: not a table of boxes; see `python -m scripts.proposals --help`")
    boxes: dict[str, list[list[float]]] = {}
    for row in rows:
        sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
        boxes.setdefault(row["photo"], []).append(sides)
    return {name: np.array(sides) for name, sides in boxes.items()}


def half_of(names: list[str], half: str) -> list[str]:
    """The photographs of a half, `dev` or `test`."""
    shuffled = sorted(names)
    random.Random(0).shuffle(shuffled)
    middle = (len(shuffled) + 1) // 2
    return sorted(shuffled[:middle] if half == "dev" else shuffled[middle:])


def grid(height: int, width: int, overlap: float = 0.5) -> np.ndarray:
    """Boxes of all sizes and shapes of proposals, half of their side apart, the largest first."""
    longer, boxes = max(height, width), []
    for size in SIZES[::-1]:
        for shape in SHAPES:
            w, h = size * longer / width * shape**0.5, size * longer / height / shape**0.5
            if w <= 1 and h <= 1:
                columns, rows = (int((1 - side) / (side * overlap)) + 1 for side in (w, h))
                left, top = np.meshgrid(np.linspace(0, 1 - w, columns), np.linspace(0, 1 - h, rows))
                boxes.append(np.stack([left, top, left + w, top + h], axis=2).reshape(-1, 4))
    return np.concatenate(boxes)


def random_boxes(height: int, width: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes of random place, size (uniform in its logarithm) and shape."""
    longer, boxes = max(height, width), []
    while len(boxes) < count:
        size = np.exp(rng.uniform(np.log(SIZES[0]), np.log(SIZES[-1])))
        shape = np.exp(rng.uniform(np.log(SHAPES[0]), np.log(SHAPES[-1])))
        w, h = size * longer / width * shape**0.5, size * longer / height / shape**0.5
        if w <= 1 and h <= 1:
            left, top = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            boxes.append((left, top, left + w, top + h))
    return np.array(boxes)


def recall(ranks: Iterable[np.ndarray]) -> list[float]:
    """The share of boxes that are found within each of `COUNTS` proposals."""
    rank = np.concatenate(list(ranks))
    return [float(((rank >= 0) & (rank < count)).mean()) for count in COUNTS]


Ranks = dict[str, dict[str, np.ndarray]]  # by method and photograph


def measure(run: Path, folder: Path, boxes: dict[str, np.ndarray]) -> tuple[Ranks, list[float]]:
    """The rank at which each box is found, and the seconds of each photograph."""
    evidence = evidence_of(Predictor(Bundle.load(run)))
    ranks: Ranks = {"network": {}, "grid of sizes": {}, "random": {}}
    seconds = []
    rng = np.random.default_rng(0)
    for name, true in boxes.items():
        photograph = load_rgb(folder / name)
        evidence(photograph)  # compiles, for a photograph of a new shape
        start = time.perf_counter()
        proposed, _ = propose(evidence(photograph), COUNTS[-1])
        seconds.append(time.perf_counter() - start)
        height, width = photograph.shape[:2]
        ranks["network"][name] = found(proposed, true)
        ranks["grid of sizes"][name] = found(grid(height, width)[: COUNTS[-1]], true)
        draws = [random_boxes(height, width, COUNTS[-1], rng) for _ in range(DRAWS)]
        ranks["random"][name] = np.concatenate([found(drawn, true) for drawn in draws])
    return ranks, seconds


def trained_on(folder: Path) -> set[str]:
    """Names of the photographs that `--backgrounds FOLDER` trains on."""
    return {path.name for path, _ in photographs(folder, "train")}


def plot(curves: dict[str, list[float]], title: str, path: Path) -> None:
    """Recall against the number of proposals."""
    from jaxgear.evaluation.plots import figures

    figure = figures.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (method, values), colour in zip(
        curves.items(), (figures.TRAIN, figures.VAL, figures.BEST), strict=True
    ):
        axes.plot(COUNTS, values, color=colour, marker="o", markersize=3, label=method)
    axes.set_xscale("log")
    axes.set_xticks(COUNTS, COUNTS)
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    figures.describe(axes, "proposals a photograph", "share of boxes found (IoU 0.5)")
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=10)
    figures.save(figure, path)


def main(arguments: argparse.Namespace) -> None:
    """Prints the table, and draws the plot."""
    boxes = read_boxes(arguments.boxes)
    chosen = {name: boxes[name] for name in half_of(list(boxes), arguments.half)}
    ranks, seconds = measure(arguments.run, arguments.photographs, chosen)
    curves = {method: recall(by_name.values()) for method, by_name in ranks.items()}
    count = sum(map(len, chosen.values()))
    print(f"{len(chosen)} photographs of the {arguments.half} half, {count} boxes")
    print("\t".join(["proposals", *map(str, COUNTS)]))
    for method, values in curves.items():
        print("\t".join([method, *(f"{value:.3f}" for value in values)]))
    if arguments.backgrounds:
        known = trained_on(arguments.backgrounds)
        left = {name: rank for name, rank in ranks["network"].items() if name not in known}
        values = recall(left.values())
        count_left = sum(map(len, left.values()))
        print("\t".join(["without backgrounds", *(f"{value:.3f}" for value in values)]), end="")
        print(f"\t({count_left} boxes in {len(left)} photographs)")
    print(
        f"seconds a photograph: median {np.median(seconds):.2f}, longest {max(seconds):.2f}, "
        f"{os.cpu_count()} cores"
    )
    if arguments.plot:
        plot(curves, f"{count} boxes in {len(chosen)} photographs", arguments.plot)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=path_argument)
    parser.add_argument("photographs", type=path_argument)
    parser.add_argument("boxes", type=path_argument)
    parser.add_argument("--half", choices=["dev", "test"], default="dev")
    parser.add_argument("--backgrounds", type=path_argument, help="what the run was trained with")
    parser.add_argument("--plot", type=path_argument, help="write the curves there, PNG")
    arguments = parser.parse_args()
    exit_with(lambda: main(arguments))
