"""What trackers show of a run folder: its figures by name and epoch, and its plots."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from jaxgear.training.history import Row

PLOTS = ("curves.png", "confusion.png", "predictions.png")
TESTED = ("accuracy", "loss", "macro_f1")


def figures(run: Path, rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """The columns of history.csv, and `test_accuracy`, ..., by name and epoch.

    The test's epoch is that of the tested model. Unknown figures (NaN) are left out.
    """
    found = {
        (name, row.epoch): value
        for row in rows
        for name, value in dataclasses.asdict(row).items()
        if name != "epoch" and value is not None
    }
    if is_tested(run):
        test = json.loads((run / "test.json").read_text(encoding="utf-8"))
        found |= {(f"test_{name}", test["epoch"]): test[name] for name in TESTED}
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def is_tested(run: Path) -> bool:
    """Whether a run has its test result, and its plots."""
    return (run / "test.json").exists()


def plots(run: Path) -> list[Path]:
    """The plots of a run folder."""
    return [path for name in PLOTS if (path := run / name).exists()]
