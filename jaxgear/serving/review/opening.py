"""Opens a review of what a user names: a run, new pictures, a queue, a corrections file."""

import getpass
import os
from collections.abc import Sequence
from pathlib import Path

from jaxgear.bundle import Bundle
from jaxgear.errors import UsageError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.paths import expanded
from jaxgear.serving.review.decisions import Decisions
from jaxgear.serving.review.files import PictureFiles
from jaxgear.serving.review.pictures import Pictures, in_order, of_run, of_sources, read_queue
from jaxgear.serving.review.predictions import Predictions
from jaxgear.serving.review.session import Session
from jaxgear.text import printable

CORRECTIONS = "corrections.csv"  # in the run folder
_LONGEST = 100  # characters of a name


def open_session(
    model: Path,
    new: Sequence[str] = (),
    *,
    data: str | None = None,
    queue: Path | None = None,
    labels: Path | None = None,
    by: str | None = None,
) -> tuple[Session, list[str]]:
    """A review of a run's pictures, or of `new` ones, and notes for the user.

    No picture is opened yet.

    Args:
        model: a run folder; with `new` a bundle will do.
        new: files, folders and patterns; empty: the run's own pictures.
        data: where the run's pictures are, if not where its config says.
        queue: a CSV of the pictures to review, in order.
        labels: the corrections file; default: corrections.csv in the run folder.
        by: who decides; default: the login name.

    Raises:
        UsageError, DataError, CheckpointError: one of these cannot be used.
    """
    by = _name(by)
    if (model / "bundle.json").exists() and not new:
        raise UsageError(
            f"{model}: a bundle has no pictures of its own; name new pictures after it"
        )
    if (model / "bundle.json").exists() and labels is None:
        raise UsageError(f"{model}: not a run folder; name the corrections file with --labels FILE")
    if new and data:
        raise UsageError("--data: the pictures of the run are not shown where new ones are named")
    notes = []
    run = None if new else FinishedRun.read(model)
    pictures = of_sources(new) if run is None else of_run(run, data)
    rows = None if queue is None else read_queue(queue)
    if rows is not None:
        pictures, unknown = in_order(pictures, rows, queue)
        if unknown:
            notes.append(
                f"note: --queue {queue}: {len(unknown)} of its {len(rows)} paths are not among the "
                f"pictures, for example {unknown[0]}"
            )
    if run is None or (model / "model" / "bundle.json").exists():
        bundle = Bundle.load(model)
        classes = bundle.classes if run is None else run.classes
    else:
        bundle, classes = None, run.classes
        notes.append(f"note: {model} has no model yet, so no predictions are shown")
    if bundle is not None and tuple(classes) != tuple(bundle.classes):
        bundle = None
        notes.append(f"note: the model of {model} has other classes, so no predictions are shown")
    labels = labels or model / CORRECTIONS
    _check_outside(labels, pictures)
    decisions = Decisions(labels)
    files = PictureFiles(pictures)
    predictions = None if bundle is None else Predictions(bundle, files)
    return Session(pictures, classes, decisions, by, predictions, files), notes


def _name(by: str | None) -> str:
    """Who decides. Never a name that means a program of ours (data/labels/corrections.py)."""
    if by is None:
        try:
            by = getpass.getuser()
        except (OSError, KeyError, ImportError):  # no such user, as in some containers
            raise UsageError("--by NAME is needed: this machine knows no login name") from None
        return f"user {by}" if by.split(" ")[0] == "jaxgear" else printable(by)
    if by != printable(by) or not by.strip() or len(by) > _LONGEST:
        raise UsageError(f"--by {printable(by)[:_LONGEST]!r}: a name of 1 to {_LONGEST} characters")
    if by.strip().split(" ")[0] == "jaxgear":
        raise UsageError(f"--by {by}: names starting with the word jaxgear are for programs")
    return by.strip()


def _check_outside(labels: Path, pictures: Pictures) -> None:
    """UsageError if a corrections file would be below a folder of pictures."""
    place = os.path.realpath(expanded(str(labels)))
    for folder in pictures.folders:
        if Path(place).is_relative_to(os.path.realpath(folder)):
            raise UsageError(
                f"--labels {labels}: below {folder}, where nothing is written; name another place"
            )
