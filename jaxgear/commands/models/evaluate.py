"""Test a trained model on a folder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.files import to_json
from jaxgear.outputs import outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear evaluate`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help="run folder, or bundle")
    parser.add_argument("folder", help="folder, table, archive or address, as --data")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="corrections that lie over the pictures"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--not-gear", type=Path, metavar="FOLDER", help="pictures without gear, to be refused"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at once (default 64)")
    parser.add_argument(
        "--on-bad",
        choices=["stop", "skip"],
        default="stop",
        help="on unusable pictures: stop with a list, or go on without them (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints and writes the fields of `test.json` for every picture of a folder."""
    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size {arguments.batch_size}: must be at least 1")
    with outputs({"--json": arguments.json}) as files:
        summary = _evaluate(arguments)
        if "--json" in files:
            files["--json"].write(to_json(summary))


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from jaxgear.bundle import Bundle
    from jaxgear.evaluation import metrics
    from jaxgear.evaluation.no_gear import refusal
    from jaxgear.prediction import Predictor, open_labelled, predict

    bundle = Bundle.load(arguments.model)
    split = open_labelled(arguments.folder, bundle, arguments.on_bad, arguments.labels)
    batch_size = min(arguments.batch_size, len(split.labels))
    logits = Predictor(bundle, batch_size).logits(split.images)
    summary = metrics.summarise(logits, split.labels, bundle.classes, bundle.temperature)
    summary["epoch"] = bundle.about.get("epoch")
    taken_for = np.sum(summary["confusion"], axis=0)
    for (name, row), count in zip(summary["per_class"].items(), taken_for, strict=True):
        if row["n"]:
            print(
                f"  {name:24} precision {row['precision']:.3f}  recall {row['recall']:.3f}  "
                f"f1 {row['f1']:.3f}  n {row['n']}"
            )
        elif count:  # a class without pictures has no recall and no F1
            print(f"  {name:24} n 0, {count} pictures of others taken for it")
    shown = [metric for metric in metrics.METRICS if metric.in_line]
    print("  ".join(f"{metric.title} {metric.text(summary[metric.name], 4)}" for metric in shown))
    splits = [*map(bundle.split_of, split.sha256)]
    summary["by_side"] = metrics.by_split(logits, split.labels, splits)
    if sentence := metrics.known_pictures(summary["by_side"]):
        print(f"note: {arguments.folder}: {sentence}", file=sys.stderr)
    summary |= refusal.acceptance(bundle, logits)
    if bundle.accept_from is not None:
        print(f"gear accepted {summary['accepted']:.4f} (scores from {bundle.accept_from:.3f})")
    if arguments.not_gear:
        if bundle.accept_from is None:
            print(f"note: {arguments.model} {refusal.ACCEPTS_ALL}", file=sys.stderr)
        others = [
            other
            for other in predict(bundle, [arguments.not_gear], arguments.batch_size)
            if other.error is None
        ]
        refused = sum(other.refused for other in others)
        known = sum(other.split is not None for other in others)
        if known:
            print(
                f"note: {arguments.not_gear}: {known} of {len(others)} are in the data of this "
                "model",
                file=sys.stderr,
            )
        summary["not_gear"] = {"n": len(others), "refused": refused, "known": known}
        print(f"not gear refused {refused} of {len(others)}")
    return summary
