"""The command line: `python -m jaxgear check|evaluate|prepare`, and what experiments share of one.

Heavy modules are imported inside the commands, so that `--help` and mistakes answer at once.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxgear.errors import GearError, UsageError

C = TypeVar("C")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `jaxgear`."""
    parser = argparse.ArgumentParser(prog="jaxgear", description="Classify photographs of gear.")
    parser.add_argument("--debug", action="store_true", help="show a traceback on errors")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="look through a folder of pictures before training")
    check.add_argument("folder", type=Path)
    check.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    check.set_defaults(run=_check)

    evaluate = commands.add_parser("evaluate", help="test a trained model on a folder")
    evaluate.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE")
    evaluate.add_argument("folder", type=Path)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    evaluate.add_argument("--batch-size", type=int, default=64)
    evaluate.add_argument("--on-bad", choices=["stop", "skip"], default="stop")
    evaluate.set_defaults(run=_evaluate)

    prepare = commands.add_parser(
        "prepare", help="write a folder, checked and split, as a TensorFlow Datasets set"
    )
    prepare.add_argument("folder", type=Path)
    prepare.add_argument("out", type=Path, help="train on it with --data tfds:gear@OUT")
    prepare.add_argument("--seed", type=int, default=0, help="decides the split")
    prepare.add_argument("--on-bad", choices=["stop", "skip"], default="stop")
    prepare.set_defaults(run=_prepare)

    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    exit_with(lambda: arguments.run(arguments), arguments.debug)


def run_experiment(experiment: Callable[[C], Path], config: type[C]) -> NoReturn:
    """Runs an experiment's `main` with a config made from the command line."""
    argv = sys.argv[1:]
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    exit_with(lambda: experiment(parse(config, argv)), debug)


def parse(config: type[C], argv: Sequence[str]) -> C:
    """A config from flags; under `--resume`, that of the run, with which flags must agree.

    Raises:
        UsageError: an unknown flag (with the nearest name), a bad value, or a flag that the resumed
            run has another value for.
    """
    from jaxgear import experiment

    chosen = _parse(config, argv, None)
    if chosen.resume:
        stored = experiment.stored_config(config, chosen.resume)
        chosen = experiment.check_resumed(_parse(config, argv, stored), stored)
    chosen.check()
    return chosen


def _parse(config: type[C], argv: Sequence[str], default: C | None) -> C:
    import tyro

    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(config, args=list(argv), default=default or config())
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(_one_line(heard.getvalue())) from None


def _one_line(box: str) -> str:
    """tyro's framed message as one line: what is wrong, and the nearest flag."""
    lines = [line.strip("╭╮╰╯│─ \n") for line in box.splitlines()]
    lines = [line for line in lines[1:] if line]
    message = lines[0] if lines else "bad flags"
    for line, following in itertools.pairwise(lines):
        if line.startswith("Perhaps you meant"):
            message += f"; perhaps you meant {following.split()[0]}"
    return message


def exit_with(command: Callable[[], Any], debug: bool = False) -> NoReturn:
    """Runs `command` and exits with its code; an error is one line on stderr."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = command()
        sys.stdout.flush()
    except GearError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _check(arguments: argparse.Namespace) -> int:
    """Lists what a training run would meet; exit 4 if it would stop."""
    from jaxgear.data.folder import conflicts, read_folder
    from jaxgear.data.splits import near_duplicate_groups

    folder = read_folder(arguments.folder, min_classes=1)
    groups: dict[str, list[str]] = {}
    group_of = near_duplicate_groups(folder.records)
    for record, group in zip(folder.records, group_of, strict=True):
        groups.setdefault(group, []).append(record.path)
    alike = [paths for paths in groups.values() if len(paths) > 1]
    clashing = conflicts(folder)
    counts = dict.fromkeys(folder.classes, 0)
    for record in folder.records:
        counts[folder.classes[record.label]] += 1
    sides = [side for r in folder.records for side in (r.height, r.width)]
    found = {
        "folder": str(arguments.folder),
        "pictures": len(folder.records),
        "classes": counts,
        "smallest_side": min(sides, default=None),
        "largest_side": max(sides, default=None),
        "refused": [{"path": r.path, "reason": r.reason} for r in folder.refused],
        "conflicts": [{"path": r.path, "reason": r.reason} for r in clashing],
        "ignored": list(folder.ignored),
        "duplicate_groups": alike,
        "fingerprint": folder.fingerprint,
    }
    print(f"{found['pictures']} pictures in {len(counts)} classes")
    for name, count in counts.items():
        print(f"  {name:24} {count}")
    if sides:
        print(f"sides from {found['smallest_side']} to {found['largest_side']} pixels")
    for title in ("refused", "conflicts"):
        print(f"{title}: {len(found[title])}")
        for row in found[title]:
            print(f"  {row['path']}: {row['reason']}")
    print(f"ignored (hidden or system files): {len(folder.ignored)}")
    print(f"groups of near-duplicates: {len(alike)}")
    for paths in alike:
        print(f"  {', '.join(paths)}")
    if arguments.json:
        _write_json(arguments.json, found)
    return 4 if folder.refused or clashing else 0


def _evaluate(arguments: argparse.Namespace) -> None:
    """Prints and writes the fields of `test.json` for every picture of a folder."""
    from jaxgear import experiment
    from jaxgear.bundle import Bundle
    from jaxgear.evaluation import metrics

    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size {arguments.batch_size}: must be at least 1")
    bundle = Bundle.load(arguments.model)
    side = experiment.open_folder(arguments.folder, bundle, arguments.on_bad)
    logits = experiment.predict(bundle, side, arguments.batch_size)
    summary = metrics.summarise(logits, side.labels, bundle.classes)
    summary["epoch"] = bundle.about.get("epoch")
    for name, row in summary["per_class"].items():
        print(
            f"  {name:24} precision {row['precision']:.3f}  recall {row['recall']:.3f}  "
            f"f1 {row['f1']:.3f}  n {row['n']}"
        )
    low, high = summary["interval95"]
    print(
        f"accuracy {summary['accuracy']:.4f} ({low:.4f} to {high:.4f})  "
        f"loss {summary['loss']:.4f}  macro-F1 {summary['macro_f1']:.4f}  n {summary['n']}"
    )
    if arguments.json:
        _write_json(arguments.json, summary)


def _prepare(arguments: argparse.Namespace) -> None:
    """Writes the set; the sides are those that a run with the same seed would have."""
    from jaxgear.data import tfds_gear
    from jaxgear.data.dataset import open_dataset

    dataset = open_dataset(
        str(arguments.folder), size=128, seed=arguments.seed, on_bad=arguments.on_bad
    )
    tfds_gear.prepare(dataset.folder, dataset.sides, dataset.groups, arguments.out)
    print(f"train on it with --data tfds:gear@{arguments.out}")


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json {path}: cannot be written ({error.strerror})") from error
