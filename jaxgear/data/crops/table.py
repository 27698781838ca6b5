"""A table of crops as a source of images: what `predict --crops --csv` writes."""

import csv
import os
from pathlib import Path

from jaxgear.data.crops.address import SIDES, address_in, parted
from jaxgear.errors import DataError

NONE = "none"  # the class of a photograph without gear


def crops_in(table: Path) -> list[str] | None:
    """The crops that a table names, by address; None: the file is no table of crops.

    Photographs without gear are left out. A path counts from here, else from the table's folder.

    Raises:
        DataError: a row without a path or a box, with its line.
    """
    if table.suffix.lower() != ".csv" or not table.is_file():
        return None
    addresses = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="")
            if not {"path", *SIDES} <= set(rows.fieldnames or ()):
                return None
            for row in rows:
                if row.get("class") == NONE:
                    continue
                name = address_in(row)
                if not row["path"] or name is None:
                    raise DataError(f"{table}, line {rows.line_num}: no path or no box")
                beside = str(table.parent / name)
                here = os.path.lexists(parted(name)[0]) or not os.path.lexists(parted(beside)[0])
                addresses.append(name if here else beside)
    except (OSError, ValueError, csv.Error):  # an image may have any name
        return None
    return addresses
