"""Classify new pictures."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from jaxgear.errors import UsageError
from jaxgear.outputs import STDOUT, Output, outputs

ASKED = 5  # a grid should show at least this many new pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear predict`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="files, folders, patterns in quotes"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a row for each picture: path, class, probability, a column for each class, "
        "score, refused (a class named like another column becomes class:NAME; - is stdout)",
    )
    parser.add_argument(
        "--grid", type=Path, metavar="FILE", help="draw the pictures with titles there, PNG"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures of each picture there"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--accept",
        type=float,
        metavar="SHARE",
        help="accept this share of gear on backgrounds, 0 to 1; 1 refuses least (for models "
        "trained with --backgrounds; their default is 0.95)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each picture: class and probability, or `none` and its score if it is
    refused as no gear. Unreadable pictures are named on stderr; then exit 4.
    """
    if not arguments.images:
        raise UsageError("no pictures: name files, folders or patterns after the run")
    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size {arguments.batch_size}: must be at least 1")
    if arguments.accept is not None and not 0 <= arguments.accept <= 1:
        raise UsageError(f"--accept {arguments.accept}: a share, 0 to 1")
    if arguments.grid not in (None, STDOUT) and arguments.grid.suffix.lower() != ".png":
        raise UsageError(f"--grid {arguments.grid}: the grid is a PNG, name it so")
    named = {f"--{flag}": getattr(arguments, flag) for flag in ("csv", "json", "grid")}
    with outputs(named) as files:
        return _predict(arguments, files)


def _predict(arguments: argparse.Namespace, outputs: dict[str, Output]) -> int:
    from jaxgear.bundle import Bundle
    from jaxgear.data.sources import find_pictures
    from jaxgear.prediction.predictor import predict_files
    from jaxgear.prediction.tables import CsvTable, JsonTable
    from jaxgear.text import printable

    if "--grid" in outputs:
        from jaxgear.evaluation.plots import figures as plots
        from jaxgear.evaluation.plots import tiles

    files = find_pictures(arguments.images)
    bundle = Bundle.load(arguments.model)
    if arguments.accept is not None:
        bundle = bundle.accepting(arguments.accept)
    writers = {"--csv": CsvTable, "--json": JsonTable}
    tables = [table(outputs[f], bundle.classes) for f, table in writers.items() if f in outputs]
    shown, splits, unreadable, refused = [], Counter(), 0, 0
    for prediction in predict_files(bundle, files, arguments.batch_size):
        path = printable(prediction.path)
        if prediction.probs is None:
            unreadable += 1
            _say(f"error: {path}: {prediction.error}")
        else:
            sure = prediction.score if prediction.refused else prediction.probs.max()
            print(f"{path}\t{prediction.name(bundle.classes)}\t{sure:.4f}", flush=True)
            splits[prediction.split] += 1
            refused += prediction.refused
        for table in tables:
            table.add(prediction)
        if "--grid" in outputs and len(shown) < tiles.MOST:
            shown.append(prediction)
    for table in tables:
        table.end()
    if refused:
        from jaxgear.evaluation.no_gear.refusal import promise

        _say(
            f"note: {refused} of {len(files)} are taken for no gear: {promise(bundle)}; "
            "--accept SHARE changes it"
        )
    del splits[None]
    if splits:
        counts = ", ".join(f"{count} {split}" for split, count in splits.items())
        _say(f"note: {splits.total()} of {len(files)} are in the data of this model ({counts})")
    if "--grid" in outputs:
        outputs["--grid"].write(
            plots.png(tiles.prediction_grid(bundle, shown, len(files)), dpi=160)
        )
        if (readable := len(files) - unreadable) < ASKED:
            count = f"{readable} new picture{'s' * (readable != 1)}"
            _say(f"note: --grid shows {count}; {ASKED} or more say more of a model")
    return 4 if unreadable else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
