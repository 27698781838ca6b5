"""Crops of photographs, named `PHOTOGRAPH#left,top,right,bottom`: read like files of their own.

address.py is where to start; table.py reads the crops that a table names.
"""

from jaxgear.data.crops.address import (
    SIDES,
    WHOLE,
    Box,
    address,
    address_in,
    compressed_sha256,
    crop,
    file_name,
    parted,
    read_bytes,
    rounded,
    sha256,
)
from jaxgear.data.crops.table import crops_in

__all__ = [
    "SIDES",
    "WHOLE",
    "Box",
    "address",
    "address_in",
    "compressed_sha256",
    "crop",
    "crops_in",
    "file_name",
    "parted",
    "read_bytes",
    "rounded",
    "sha256",
]
