"""Crops of photographs, named `PHOTOGRAPH#left,top,right,bottom`: read like files of their own.

address.py is where to start, and all there is.
"""

from jaxgear.data.crops.address import (
    WHOLE,
    Box,
    address,
    crop,
    file_name,
    parted,
    read_bytes,
    rounded,
    sha256,
)

__all__ = [
    "WHOLE",
    "Box",
    "address",
    "crop",
    "file_name",
    "parted",
    "read_bytes",
    "rounded",
    "sha256",
]
