"""How models hold when pictures get worse, a column a model: as Markdown, and as CSV with --csv.

    python -m scripts.robustness RUN... --data FOLDER --set composite=DIR --set wild=DIR --csv FILE

Clean and corrupted pictures are those of each run's own test side, letterboxed as its network sees
them (`evaluation/corruptions.py`; the row is the mean of five severities); a set is a folder of
pictures by class.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from jaxgear import prediction
from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.images import letterbox, load_rgb
from jaxgear.errors import UsageError
from jaxgear.evaluation import metrics
from jaxgear.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from jaxgear.evaluation.finished import FinishedRun


def column(run: Path, data: str, sets: dict[str, Path], severities: list[int]) -> dict[str, float]:
    """Row name -> accuracy of one run's model; macro-F1 too where there are sets."""
    finished, bundle = FinishedRun.read(run), Bundle.load(run)
    predictor = prediction.Predictor(bundle)
    root = Path(data or finished.config["data"])
    pictures = finished.side("test")
    images = np.stack([letterbox(load_rgb(root / one.path), bundle.size) for one in pictures])
    labels = np.array([bundle.classes.index(one.name) for one in pictures], np.int32)

    def accuracy(images: np.ndarray) -> float:
        return float((predictor.logits(images).argmax(axis=1) == labels).mean())

    rows = {"clean": accuracy(images)}
    for name, folder in sets.items():
        side = prediction.open_folder(folder, bundle, "stop")
        found = metrics.summarise(
            predictor.logits(side.images), side.labels, bundle.classes, bundle.temperature
        )
        rows |= {name: found["accuracy"], f"{name}, macro-F1": found["macro_f1"]}
    for name in CORRUPTIONS:
        each = [accuracy(corrupt(images, name, severity)) for severity in severities]
        rows[name] = float(np.mean(each))
    rows["mean of corruptions"] = float(np.mean([rows[name] for name in CORRUPTIONS]))
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", default="", help="the runs' pictures, where they have moved")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--severity", type=int, action="append", choices=SEVERITIES)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()

    def run() -> None:
        sets = {}
        for one in given.set:
            name, _, folder = one.partition("=")
            if not folder:
                raise UsageError(f"--set {one}: expected NAME=FOLDER")
            sets[name] = Path(folder)
        severities = given.severity or list(SEVERITIES)
        columns = [column(run, given.data, sets, severities) for run in given.runs]
        names = [run.name for run in given.runs]
        print("| |", " | ".join(names), "|")
        print("|---|" + "---|" * len(names))
        for row in columns[0]:
            print(f"| {row} |", " | ".join(f"{one[row]:.3f}" for one in columns), "|")
        if given.csv:
            with given.csv.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["test", *names])
                writer.writerows([row, *(f"{c[row]:.4f}" for c in columns)] for row in columns[0])

    exit_with(run)


if __name__ == "__main__":
    main()
