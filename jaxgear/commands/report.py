"""Write one HTML page about a run: curves, mistakes, calibration, data."""

import argparse
from pathlib import Path

from jaxgear.files import write_output

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear report`."""
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the run's pictures are now, if not as in its config"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes RUN/report.html, which opens from disk and needs nothing beside it."""
    from jaxgear.evaluation import report
    from jaxgear.evaluation.findings import find
    from jaxgear.evaluation.finished import FinishedRun

    finished = FinishedRun.read(arguments.run_folder)
    file = arguments.run_folder / REPORT
    write_output("RUN", file, report.render(finished, find(finished, arguments.data)))
    print(file)
