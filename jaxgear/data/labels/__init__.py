"""Labels as data: tables, archives, addresses and corrections in, listings and new labels out.

listing.py is where to start: it lists a set, however it is named. apply.py lays corrections over
one.
"""

from jaxgear.data.labels.addresses import fetched_any
from jaxgear.data.labels.apply import ADDED, added_file, corrected, read_labels, with_corrections
from jaxgear.data.labels.corrections import (
    Correction,
    append,
    label_fault,
    now,
    read_corrections,
    standing,
)
from jaxgear.data.labels.listing import as_named, list_source

__all__ = [
    "ADDED",
    "Correction",
    "added_file",
    "append",
    "as_named",
    "corrected",
    "fetched_any",
    "label_fault",
    "list_source",
    "now",
    "read_corrections",
    "read_labels",
    "standing",
    "with_corrections",
]
