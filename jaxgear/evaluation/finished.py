"""Reads a trained run back from its folder, for reports and comparisons."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from jaxgear.errors import CheckpointError
from jaxgear.training import history
from jaxgear.training.runs.folder import read_json


@dataclasses.dataclass(frozen=True, slots=True)
class SplitRow:
    """A line of `splits.json`."""

    path: str  # relative to the data folder
    sha256: str
    name: str  # of its class
    group: str  # shared by near-duplicates
    split: str  # one of `data.folder.names.ALL`


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The files of a run folder, parsed. Nothing is computed."""

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    source: str  # the experiment file as run
    fingerprint: str  # of the data
    classes: tuple[str, ...]
    pictures: tuple[SplitRow, ...]
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
        recorded = read_json(path / "splits.json")
        table = path / "history.csv"
        try:
            rows = history.from_csv(table.read_text(encoding="utf-8")) if table.exists() else []
            if not any(math.isfinite(row.val_loss) for row in rows):
                raise CheckpointError(f"{path}: no epoch of this run is finished yet")
            pictures = tuple(
                # Interned: a thousand runs on the same data share each name.
                SplitRow(
                    *(sys.intern(p[key]) for key in ("path", "sha256", "class", "group", "side"))
                )
                for p in recorded["pictures"]
            )
            return cls(
                path=path,
                config=dict(config),
                environment=dict(read_json(path / "environment.json")),
                source=(path / "experiment.py").read_text(encoding="utf-8"),
                fingerprint=str(recorded["fingerprint"]),
                classes=tuple(recorded["classes"]),
                pictures=pictures,
                rows=tuple(rows),
                test=read_json(path / "test.json") if (path / "test.json").exists() else None,
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as a run ({error})") from error

    @property
    def best(self) -> history.Row:
        """The epoch of lowest validation loss."""
        return history.best(self.rows)

    def split(self, name: str) -> tuple[SplitRow, ...]:
        """The images of one split."""
        return tuple(picture for picture in self.pictures if picture.split == name)
