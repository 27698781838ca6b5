"""Write one HTML page about a run: curves, mistakes, calibration, robustness, data."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxgear.errors import UsageError
from jaxgear.outputs import outputs, to_stderr

REPORT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear report`."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the run's pictures are now, if they have moved"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write the page there (RUN/{REPORT})"
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="predict corrupted test pictures too (45 times: minutes for a large network); the "
        "figures are kept in RUN for later reports",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="with --robustness: corrupt at most N pictures"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="test on that folder of pictures by class too; the figures are kept as well",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="show the kept figures of another run beside it",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the page, RUN/report.html or `--out`, as one complete file."""
    if arguments.limit is not None and (arguments.limit < 1 or not arguments.robustness):
        raise UsageError(f"--limit {arguments.limit}: goes with --robustness, and is at least 1")

    from jaxgear.evaluation.finished import FinishedRun
    from jaxgear.evaluation.report import render as report
    from jaxgear.evaluation.report.findings import find
    from jaxgear.evaluation.robustness import measure as robustness

    folders = named_folders(arguments.set)
    finished = FinishedRun.read(arguments.run_folder)
    beside = [robustness.Beside.read(path, finished) for path in arguments.beside]
    file = arguments.out or finished.path / REPORT
    with outputs({"--out": file}) as files:
        measured = robustness.measured(
            finished,
            arguments.data,
            folders,
            arguments.robustness,
            arguments.limit,
            to_stderr,
        )
        if beside and measured is None:
            raise UsageError(f"--beside: nothing is measured of {finished.path}; add --robustness")
        findings = find(finished, arguments.data)
        for line in findings.trained_on:
            print(f"warning: {line}", file=sys.stderr)
        page = report.render(finished, findings, measured, beside)
        files["--out"].write(page)
        print(file)


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER -> {NAME: FOLDER}.

    Raises:
        UsageError: a text is not of that form, or its name is taken.
    """
    from jaxgear.evaluation.robustness.corruptions import CORRUPTIONS
    from jaxgear.evaluation.robustness.measure import CLEAN

    folders = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise UsageError(f"--set {text}: expected NAME=FOLDER")
        if name in folders or name in (CLEAN, *CORRUPTIONS):
            raise UsageError(f"--set {text}: the name {name} is taken")
        folders[name] = Path(folder)
    return folders
