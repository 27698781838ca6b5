"""Labels as data: tables, corrections and addresses in, checked records and new labels out.

corrections.py is where to start.
"""

from jaxgear.data.labels.corrections import (
    Correction,
    append,
    label_fault,
    now,
    read_corrections,
    standing,
)

__all__ = ["Correction", "append", "label_fault", "now", "read_corrections", "standing"]
