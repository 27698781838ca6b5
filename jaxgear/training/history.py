"""The history of a run, one row per epoch: its CSV, the best epoch, and signs of overfitting."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

FIELDS = (
    "epoch",
    "step",
    "train_loss",
    "val_loss",
    "train_accuracy",
    "val_accuracy",
    "learning_rate",
    "seconds",
)
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

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:3d}  loss {self.train_loss:.4f} train {self.val_loss:.4f} val  "
            f"accuracy {self.train_accuracy:.4f} train {self.val_accuracy:.4f} val  "
            f"{self.seconds:.1f} s"
        )


def to_csv(rows: Sequence[Row]) -> str:
    """CSV with a header. Floats are written as `repr`, so reading gives the same bits."""
    text = io.StringIO()
    fields = FIELDS + PSEUDO * any(row.pseudo_used is not None for row in rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([getattr(row, field) for field in fields] for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The inverse of `to_csv`."""
    types = {field.name: field.type for field in dataclasses.fields(Row)}
    types |= dict.fromkeys(PSEUDO, float)
    return [
        Row(**{name: types[name](value) for name, value in line.items()})
        for line in csv.DictReader(io.StringIO(text))
    ]


def best(rows: Sequence[Row]) -> Row:
    """The row of lowest finite validation loss; of equal rows, the earliest."""
    finite = [row for row in rows if math.isfinite(row.val_loss)]
    return min(finite, key=lambda row: row.val_loss)


def epochs_since_best(rows: Sequence[Row]) -> int:
    """Epochs since the lowest validation loss, which patience counts."""
    return rows[-1].epoch - best(rows).epoch


def overfitting(rows: Sequence[Row], least: int = 3) -> str | None:
    """A sentence that reports overfitting, or None.

    Overfitting: in the last `least` epochs or more, validation loss rises above its best while
    training loss falls.
    """
    lowest = best(rows)
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
