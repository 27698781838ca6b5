"""Compare runs: their curves, and their figures with the spread over seeds."""

import argparse
from pathlib import Path

from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import to_json
from jaxgear.outputs import Output, outputs

# A longer difference between experiment files is printed as a `diff` command.
SOURCE_LINES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear compare`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw the curves there (PNG)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line a run there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")


def run(arguments: argparse.Namespace) -> None:
    """Groups the runs by config and experiment file; prints and draws the figures of each group."""
    named = {f"--{flag}": getattr(arguments, flag) for flag in ("out", "csv", "json")}
    with outputs(named) as files:
        _compare(arguments, files)


def _compare(arguments: argparse.Namespace, outputs: dict[str, Output]) -> None:
    from jaxgear.evaluation import comparison
    from jaxgear.evaluation.finished import FinishedRun

    places = set()
    for path in arguments.runs:
        if (place := path.resolve()) in places:
            raise UsageError(f"{path}: given more than once")
        places.add(place)
    runs, unread = [], []
    for path in arguments.runs:
        try:
            runs.append(FinishedRun.read(path))
        except CheckpointError as error:
            if not path.exists():  # mistyped; one that exists may be a crashed run of RUNS/*
                raise
            unread.append(error)
    if not runs:
        raise unread[0]
    compared = comparison.compare(runs, [f"{error}; left out" for error in unread])
    _print_groups(compared)
    _print_differences(compared)
    for line in compared.warnings:
        print(f"warning: {line}")
    values = comparison.to_dict(compared)
    if "--csv" in outputs:
        outputs["--csv"].write(_csv(values))
    if "--json" in outputs:
        outputs["--json"].write(to_json(values))
    if "--out" in outputs:
        from jaxgear.evaluation.plots import figures as plots
        from jaxgear.evaluation.plots import learning_curves

        figure = learning_curves.runs(
            {
                f"{group.label}: {_description(compared, group)}": [r.rows for r in group.runs]
                for group in compared.groups
            }
        )
        outputs["--out"].write(plots.png(figure))


def _print_groups(compared) -> None:
    from jaxgear.evaluation.comparison import MEASURES

    table = [["", "runs", *MEASURES.values()]]
    for group in compared.groups:
        cells = [_cell(name, group.spread(name)) for name in MEASURES]
        table.append([group.label, str(len(group.runs)), *cells])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print()
    for group in compared.groups:
        names = ", ".join(f"{run.path.name} (seed {run.config.get('seed')})" for run in group.runs)
        print(f"{group.label}: {names}")


def _print_differences(compared) -> None:
    from jaxgear.evaluation.comparison import MEASURES

    for key, values in compared.differing.items():
        print(f"{key}: " + ", ".join(f"{label} {_value(value)}" for label, value in values.items()))
    first = compared.groups[0]
    for group in compared.groups:
        if not (lines := compared.sources.get(group.label)):
            continue
        print(f"experiment.py: {group.label} differs from {first.label} in {len(lines)} lines")
        if len(lines) > SOURCE_LINES:
            paths = [member.runs[0].path / "experiment.py" for member in (first, group)]
            lines = [f"diff {paths[0]} {paths[1]}"]
        for line in lines:
            print(f"  {line}")
    for label, pairs in compared.pairs.items():
        if pairs:
            print(f"{label} - {first.label}, paired by equal test pictures:")
        for name, difference in pairs.items():
            sign = "+" if difference.mean >= 0 else ""
            count = f"{difference.n} pair" + ("s" if difference.n > 1 else "")
            interval = ""
            if difference.low is not None:
                interval = f", 95 % interval {difference.low:+.4f} to {difference.high:+.4f}"
            print(
                f"  {MEASURES[name]:13} {sign}{difference} ({count}){interval}: "
                f"{difference.verdict()}"
            )
    if compared.probability_best:
        shares = ", ".join(f"{k} {p:.2f}" for k, p in compared.probability_best.items())
        print(f"probability of the highest {MEASURES[compared.best_by]} (bootstrap): {shares}")


def _value(value) -> str:
    return "(empty)" if value == "" else str(value)


def _cell(name: str, spread) -> str:
    if spread is None:
        return "-"
    formats = {"best_epoch": ".1f", "seconds": ".1f", "flops": ".3g"}
    return format(spread, formats.get(name, ".4f"))


def _description(compared, group) -> str:
    """The ways in which a group differs from the others, short enough for a legend."""
    words = [
        f"{key} {_value(values[group.label])}"
        for key, values in compared.differing.items()
        if group.label in values
    ]
    if group.label in compared.sources:
        words.append(f"{len(compared.sources[group.label])} lines of experiment.py")
    return ", ".join(words) or group.runs[0].path.name


def _csv(values) -> str:
    from jaxgear.evaluation.comparison import MEASURES
    from jaxgear.text import to_csv

    columns = ["group", "run", "seed", *MEASURES]
    runs = [{"group": group["group"], **run} for group in values["groups"] for run in group["runs"]]
    return to_csv([columns, *([run.get(name) for name in columns] for run in runs)])
