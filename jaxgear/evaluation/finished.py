"""Reads a trained run back from its folder, for reports and comparisons."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxgear.data.recorded import Pictures, Recorded
from jaxgear.errors import CheckpointError
from jaxgear.files import read_json
from jaxgear.notebook import Facts, facts, table
from jaxgear.training import history


@dataclasses.dataclass(frozen=True, repr=False)
class FinishedRun(Facts):
    """The files of a run folder, parsed. Nothing is computed.

    A notebook shows its figures as tables.

    >>> run = jaxgear.FinishedRun.read("RUN")
    >>> run.best.epoch, run.config["image_size"]
    (2, 32)
    >>> 0 <= run.test["accuracy"] <= 1
    True
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    source: str  # the experiment file as run
    fingerprint: str  # of the data
    classes: tuple[str, ...]
    pictures: Pictures
    rows: tuple[history.Row, ...]  # at least one
    test: dict[str, Any] | None  # test.json; None: the run was interrupted before its test

    @classmethod
    def read(cls, path: str | Path) -> "FinishedRun":
        """Reads a run folder.

        Raises:
            CheckpointError: not a run folder, or no epoch of it is finished.
        """
        path = Path(path)
        config = read_json(path / "config.json")
        recorded = Recorded.read(path)
        rows = history.read(path)
        if not any(math.isfinite(row.val_loss) for row in rows):
            raise CheckpointError(f"{path}: no epoch of this run is finished yet")
        try:
            return cls(
                path=path,
                config=dict(config),
                environment=dict(read_json(path / "environment.json")),
                source=(path / "experiment.py").read_text(encoding="utf-8"),
                fingerprint=recorded.fingerprint,
                classes=recorded.classes,
                pictures=recorded.pictures,
                rows=tuple(rows),
                test=read_json(path / "test.json") if (path / "test.json").exists() else None,
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as a run ({error})") from error

    @property
    def best(self) -> history.Row:
        """The epoch of lowest validation loss."""
        return history.best(self.rows)

    @property
    def flops(self) -> int | None:
        """FLOPs of all optimizer steps (`program.flops`); None: a run of older code."""
        return history.flops(self.environment.get("flops_per_step"), self.rows)

    def _facts(self) -> dict[str, str]:
        best = self.best
        known = {
            "run": self.path.name,
            "pictures": f"{len(self.pictures)} of {len(self.classes)} classes",
            "best epoch": f"{best.epoch} of {len(self.rows)}",
            "validation accuracy": f"{best.val_accuracy:.4f}",
        }
        if self.test is None:
            return known | {"test accuracy": "not tested"}
        low, high = self.test.get("interval95", (math.nan, math.nan))
        interval = f"{self.test['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})"
        return known | {"test accuracy": interval, "macro-F1": f"{self.test['macro_f1']:.4f}"}

    def _repr_html_(self) -> str:
        of_classes = (self.test or {}).get("per_class", {})
        rows = [
            [name, *(f"{of[column]:.3f}" for column in ("precision", "recall", "f1")), str(of["n"])]
            for name, of in of_classes.items()
        ]
        header = ["test pictures", "precision", "recall", "F1", "number"]
        return facts("Run", self._facts()) + (table("By class", header, rows) if rows else "")

    def split(self, *names: str) -> Pictures:
        """The images of some splits, one split after the other."""
        return self.pictures.of_splits(*names)
