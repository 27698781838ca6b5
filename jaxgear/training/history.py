"""The history of a run, one row per epoch: its CSV, the best epoch, and signs of overfitting."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgear import text
from jaxgear.errors import CheckpointError, DivergedError

SIZE = ("size",)  # of runs with progressive resizing
PSEUDO = ("pseudo_used", "pseudo_right")  # columns of runs that learn from images without labels


@dataclasses.dataclass(frozen=True)
class Row:
    """One epoch. Losses are example-weighted means; the training loss includes augmentation."""

    epoch: int  # from 1
    step: int  # optimizer steps so far
    train_loss: float
    val_loss: float
    train_accuracy: float
    val_accuracy: float
    learning_rate: float  # of the epoch's last step
    seconds: float
    pseudo_used: float | None = None  # share of the images without labels; None: there are none
    pseudo_right: float | None = None  # share of their labels that is right; NaN: unknown
    size: int | None = None  # side of the images of this epoch, with progressive resizing

    @property
    def rank(self) -> tuple[int, float]:
        """The least is best: validation losses compare among images of one size, larger first."""
        return -(self.size or 0), self.val_loss

    def __str__(self) -> str:
        epoch = f"epoch {self.epoch:3d}" + (f" ({self.size} px)" if self.size else "")
        return (
            f"{epoch}  loss {self.train_loss:.4f} train {self.val_loss:.4f} val  "
            f"accuracy {self.train_accuracy:.4f} train {self.val_accuracy:.4f} val  "
            f"{self.seconds:.1f} s"
        )


# Columns of every run.
FIELDS = tuple(f.name for f in dataclasses.fields(Row) if f.default is dataclasses.MISSING)


def to_csv(rows: Sequence[Row]) -> str:
    """CSV with a header. Floats are written as `repr`, so reading gives the same bits."""
    fields = FIELDS + PSEUDO * any(row.pseudo_used is not None for row in rows)
    fields += SIZE * any(row.size is not None for row in rows)
    return text.to_csv([fields, *([getattr(row, field) for field in fields] for row in rows)])


def from_csv(table: str) -> list[Row]:
    """The inverse of `to_csv`."""
    types = {field.name: field.type for field in dataclasses.fields(Row)}
    types |= dict.fromkeys(PSEUDO, float) | dict.fromkeys(SIZE, int)
    return [
        Row(**{name: types[name](value) for name, value in line.items()})
        for line in csv.DictReader(io.StringIO(table))
    ]


def read(run: Path) -> list[Row]:
    """The finished epochs of a run folder.

    Raises:
        CheckpointError: `history.csv` is not as `to_csv` writes it.
    """
    file = run / "history.csv"
    try:
        return from_csv(file.read_text(encoding="utf-8")) if file.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: unreadable ({error})") from error


def best(rows: Sequence[Row]) -> Row:
    """The row of lowest finite validation loss; of equal rows, the earliest.

    With progressive resizing, among the epochs of the largest images.

    Raises:
        DivergedError: no validation loss is finite.
    """
    finite = [row for row in rows if math.isfinite(row.val_loss)]
    if not finite:
        raise DivergedError("diverged: no validation loss is finite; try a lower --peak-lr")
    return min(finite, key=lambda row: row.rank)


def flops(of_step: int | Sequence[int] | None, rows: Sequence[Row]) -> int | None:
    """FLOPs of the optimizer steps of these epochs, the first ones of a run.

    `of_step` is what a step takes (`program.flops`), or those of each epoch; None: not known.
    """
    if of_step is None or isinstance(of_step, int):
        return of_step and of_step * rows[-1].step
    last = [row.step for row in rows]
    steps = np.diff(last, prepend=0).tolist()
    return sum(of_step[row.epoch - 1] * count for row, count in zip(rows, steps, strict=True))


def epochs_since_best(rows: Sequence[Row]) -> int:
    """Epochs since the lowest validation loss, which patience counts."""
    return rows[-1].epoch - best(rows).epoch


def overfitting(rows: Sequence[Row], least: int = 3) -> str | None:
    """A sentence that reports overfitting, or None.

    Overfitting: in the last `least` epochs or more, validation loss rises above its best while
    training loss falls.
    """
    lowest = best(rows)
    rows = [row for row in rows if row.size == lowest.size]
    after = [row for row in rows if row.epoch >= lowest.epoch]
    since = len(after) - 1
    if since < least:
        return None
    late = after[len(after) // 2 :]
    mean = sum(row.val_loss for row in late) / len(late)
    # A rise of half a percent is noise.
    if mean <= 1.005 * lowest.val_loss or after[-1].train_loss >= lowest.train_loss:
        return None
    return (
        f"overfitting: validation loss has been above its best for {since} epochs while "
        f"training loss fell; best epoch {lowest.epoch}"
    )
