"""The pictures of a finished run, found again by their hashes wherever they are now."""

import dataclasses
from collections.abc import Sequence

from jaxgear.data.dataset import default_source, read_source
from jaxgear.data.folder import Folder
from jaxgear.errors import DataError
from jaxgear.evaluation.finished import FinishedRun, Picture


def open_source(run: FinishedRun, source: str | None, size: int) -> Folder:
    """What the run was trained on, or `source` in its place, for pictures of `size` pixels.

    Raises:
        DataError: it is not there.
    """
    given = source or run.config.get("data") or default_source()
    try:
        return read_source(given, size)
    except DataError as error:
        if source:
            raise
        raise DataError(
            f"{run.path}: its pictures are not at {given!r} as its config says (a relative path "
            f"counts from where the run was started); name their place with --data FOLDER"
        ) from error


def only(folder: Folder, run: FinishedRun, pictures: Sequence[Picture]) -> Folder:
    """`folder` with the records of `pictures` alone, in their order.

    Pictures that were added or moved since do not matter, one that is gone does.

    Raises:
        DataError: a picture is gone.
    """
    records = {record.sha256: record for record in folder.records}
    if gone := [picture.path for picture in pictures if picture.sha256 not in records]:
        raise DataError(
            f"{folder.root}: {len(gone)} of the pictures that {run.path} was tested on are not "
            f"there, as {gone[0]}; name their place with --data FOLDER"
        )
    return dataclasses.replace(folder, records=tuple(records[p.sha256] for p in pictures))
