"""What trackers show of a run: its figures by name and epoch, and the plots of its folder."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxgear.training.history import Row

PLOTS = ("curves.png", "confusion.png", "predictions.png")
TESTED = ("accuracy", "loss", "macro_f1")


def figures(rows: Sequence[Row], test: dict[str, Any] | None) -> dict[tuple[str, int], float]:
    """The columns of history.csv, and of a test `test_accuracy`, ..., by name and epoch.

    The test's epoch is that of the tested model. Unknown figures (NaN) are left out.
    """
    found = {
        (name, row.epoch): value
        for row in rows
        for name, value in dataclasses.asdict(row).items()
        if name != "epoch" and value is not None
    }
    if test is not None:
        found |= {(f"test_{name}", test["epoch"]): test[name] for name in TESTED}
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def plots(run: Path) -> list[Path]:
    """The plots of a run folder."""
    return [path for name in PLOTS if (path := run / name).exists()]
