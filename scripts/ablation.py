"""Measures which choices matter for pictures taken outdoors: one change at a time, as a table.

    python -m scripts.ablation --data FOLDER --photographs PHOTOS --composites-from ALL \\
        --wild WILD --seeds 1 2 3 --out DIR
    python -m scripts.ablation --out DIR --table

Trains experiments/transfer.py with each change to `BASELINE`. Measures each model on its validation
split, on that split pasted on photographs of ALL that no training sees (scripts/outdoor_test.py),
and on WILD, a folder of pictures by class. Appends a row for each to DIR/ablation.csv; rows that
exist are not made again. Like all runs, these end with a test on catalogue pictures, which this
script does not read.
"""

import argparse
import csv
import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from experiments import transfer
from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.folder import pixels
from jaxgear.errors import UsageError
from jaxgear.evaluation import metrics
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.own_pictures import only, open_source
from jaxgear.evaluation.robustness.corruptions import turned
from jaxgear.paths import path_argument
from jaxgear.prediction import Predictor, open_labelled
from scripts import outdoor_test

BASELINE = {
    "image_size": 128,
    "views": 4,
    "epochs": 30,
    "patience": 40,
    "paste": 0.9,
    "mirror": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "no-backgrounds": {"backgrounds": ""},
    "drawn-backgrounds": {"backgrounds": "drawn"},
    "paste-half": {"paste": 0.5},
    "160-px": {"image_size": 160},
    "224-px": {"image_size": 224},
    "1-view": {"views": 1},
    "8-views": {"views": 8},
    "regularised-head": {"weight_decay": 3.0, "dropout": 0.5},
    "last-stage-tuned": {"finetune": 4, "finetune_epochs": 2},
}
# Views at test time, for the baseline's model: logits are the mean over the image and its mirror
# image at each of these scales.
TEST_VIEWS = {"test-mirror": (1.0,), "test-mirror-scales": (0.9, 1.0, 1.1)}
FOLDERS = ("--data", "--photographs", "--composites-from", "--wild")
FIGURES = ("catalogue", "composite", "wild", "wild_recall")


def train(name: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The run folder of a variant: a complete one that exists, or a new one."""
    out = arguments.out / "runs" / f"{name}-{seed}"
    if done := sorted(out.glob("*/test.json")):
        return done[-1].parent
    changes = {"backgrounds": str(arguments.photographs)} | BASELINE | VARIANTS[name]
    config = transfer.Config(data=str(arguments.data), out=str(out), seed=seed)
    jax.clear_caches()  # drop the programs of the previous variant
    return transfer.main(dataclasses.replace(config, **changes))


def composites(run: FinishedRun, arguments: argparse.Namespace) -> Path:
    """The validation split of a run, pasted; runs of the same split share the folder."""
    split = sorted(picture.sha256 for picture in run.split("val"))
    out = arguments.out / "composites" / hashlib.sha256("".join(split).encode()).hexdigest()[:16]
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=arguments.out) as scratch:  # complete or absent
            new = Path(scratch, "val")
            outdoor_test.build(
                run.path, arguments.composites_from, new, "val", str(arguments.data), 0
            )
            new.rename(out)
    return out


def measure(
    path: Path, scales: tuple[float, ...], arguments: argparse.Namespace
) -> dict[str, float]:
    """`FIGURES` of a run; without `scales`, each image is seen once, as it is."""
    run, bundle = FinishedRun.read(path), Bundle.load(path)
    predictor = Predictor(bundle)

    def score(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        logits = logits_of_views(predictor, images, scales) if scales else predictor.logits(images)
        return metrics.summarise(logits, labels, bundle.classes, bundle.temperature)

    val = run.split("val")
    folder = only(open_source(run, str(arguments.data), bundle.size), run, val)
    labels = np.array([bundle.classes.index(picture.name) for picture in val], np.int32)
    scores = [score(pixels(folder, bundle.size), labels)]
    for root in (composites(run, arguments), arguments.wild):
        split = open_labelled(str(root), bundle, "stop")
        scores.append(score(split.images, split.labels))
    recall = np.mean([row["recall"] for row in scores[-1]["per_class"].values() if row["n"]])
    return dict(zip(FIGURES, [*(s["accuracy"] for s in scores), float(recall)], strict=True))


def logits_of_views(
    predictor: Predictor, images: UInt8[np.ndarray, "N S S 3"], scales: tuple[float, ...]
) -> Float[np.ndarray, "N K"]:
    """Mean logits of the pictures and their mirror images at each scale."""
    views = [np.stack([turned(image, 0, scale) for image in images]) for scale in scales]
    views += [view[:, :, ::-1] for view in views]
    return np.mean([predictor.logits(view) for view in views], axis=0)


def read(file: Path) -> list[dict[str, str]]:
    """The rows so far."""
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


def run(arguments: argparse.Namespace) -> None:
    """Makes the missing rows, seed by seed."""
    for flag in FOLDERS:
        folder = getattr(arguments, flag.strip("-").replace("-", "_"))
        if folder is None or not folder.is_dir():
            raise UsageError(f"{flag} {folder or ''}: name a folder")
    file = arguments.out / "ablation.csv"
    done = {(row["variant"], row["seed"]) for row in read(file)}
    for seed in arguments.seeds:
        for name in arguments.only or [*VARIANTS, *TEST_VIEWS]:
            if (name, str(seed)) in done:
                continue
            path = train(name if name in VARIANTS else "baseline", seed, arguments)
            figures = measure(path, TEST_VIEWS.get(name, ()), arguments)
            row = {"variant": name, "seed": seed, **figures, "run": path.name}
            print(row, flush=True)
            with file.open("a", newline="") as lines:
                table = csv.DictWriter(lines, row)
                if not lines.tell():
                    table.writeheader()
                table.writerow(row)


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: mean and standard deviation over seeds, in the order of `VARIANTS`."""
    lines = ["| variant | seeds |" + "".join(f" {figure} |" for figure in FIGURES)]
    lines.append("|---" * (2 + len(FIGURES)) + "|")
    for name in (*VARIANTS, *TEST_VIEWS):
        if own := [row for row in rows if row["variant"] == name]:
            cells = [name, str(len(own))]
            for values in ([float(row[figure]) for row in own] for figure in FIGURES):
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.3f}{spread}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Makes rows, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in FOLDERS:
        parser.add_argument(flag, type=path_argument, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=path_argument, required=True)
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *TEST_VIEWS], metavar="NAME")
    parser.add_argument("--table", action="store_true", help="print the rows so far, make none")
    arguments = parser.parse_args()
    file = arguments.out / "ablation.csv"
    exit_with(lambda: print(table(read(file))) if arguments.table else run(arguments))


if __name__ == "__main__":
    main()
