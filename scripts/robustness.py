"""Accuracy of models on corrupted pictures, a column for each: as Markdown, and with --csv as CSV.

    python -m scripts.robustness RUN... --data FOLDER --set composite=DIR --set wild=DIR --csv FILE

Clean and corrupted pictures are each run's own test split, letterboxed as its network sees them
(evaluation/robustness/corruptions.py). A row is the mean of the severities. A set is a folder of
pictures by class. `python -m jaxgear report RUN --robustness` shows each severity.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.commands.runs.report import named_folders
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.metrics import known_pictures
from jaxgear.evaluation.robustness.corruptions import SEVERITIES
from jaxgear.evaluation.robustness.measure import CLEAN, Measure
from jaxgear.outputs import outputs
from jaxgear.paths import path_argument
from jaxgear.text import to_csv


def column(run: Path, data: str, sets: dict[str, Path], severities: list[int]) -> dict[str, float]:
    """Row name -> accuracy of a run's model, and macro-F1 of each set."""
    measure = Measure(FinishedRun.read(run), Bundle.load(run), data or None)
    rows = {}
    for name, score in measure.sets(sets).items():
        rows[name] = score["accuracy"]
        if sentence := known_pictures(score["by_side"]):
            print(f"note: {run}: {name}: {sentence}", file=sys.stderr)
        if name != CLEAN:
            rows[f"{name}, macro-F1"] = score["macro_f1"]
    corruptions, _ = measure.corruptions(severities)
    means = {name: float(np.mean(values)) for name, values in corruptions.items()}
    return rows | means | {"mean of corruptions": float(np.mean(list(means.values())))}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=path_argument, nargs="+", metavar="RUN")
    parser.add_argument("--data", default="", help="the runs' pictures, if they have moved")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--severity", type=int, action="append", choices=SEVERITIES)
    parser.add_argument("--csv", type=path_argument)
    arguments = parser.parse_args()

    def run() -> None:
        sets = named_folders(arguments.set)
        severities = arguments.severity or list(SEVERITIES)
        with outputs({"--csv": arguments.csv}) as files:
            columns = [column(run, arguments.data, sets, severities) for run in arguments.runs]
            names = [run.name for run in arguments.runs]
            print("| |", " | ".join(names), "|")
            print("|---|" + "---|" * len(names))
            for row in columns[0]:
                print(f"| {row} |", " | ".join(f"{column[row]:.3f}" for column in columns), "|")
            if "--csv" in files:
                rows = ([row, *(f"{c[row]:.4f}" for c in columns)] for row in columns[0])
                files["--csv"].write(to_csv([["test", *names], *rows]))

    exit_with(run)


if __name__ == "__main__":
    main()
