"""Turns a folder of photographs into checked records: paths in, `Folder` out.

read.py is where to start. walk.py lists files by class and split. picture_cache.py keeps decoded
images between runs. clean.py handles unusable files. lazy.py makes images on demand.
"""

from jaxgear.data.folder.clean import OnBad, require_clean
from jaxgear.data.folder.lazy import LazyPictures
from jaxgear.data.folder.picture_cache import MaskCache, PictureCache, kept_descriptors, shrink
from jaxgear.data.folder.read import (
    HEAP,
    Folder,
    Record,
    assemble,
    check_listing,
    checker,
    class_names,
    fingerprint,
    is_heap,
    pixels,
    read_folder,
    read_heap,
    stored_pictures,
)
from jaxgear.data.folder.walk import (
    Candidate,
    Listing,
    Refused,
    check_names,
    list_files,
    list_pictures,
)

__all__ = [
    "HEAP",
    "Candidate",
    "Folder",
    "LazyPictures",
    "Listing",
    "MaskCache",
    "OnBad",
    "PictureCache",
    "Record",
    "Refused",
    "assemble",
    "check_listing",
    "check_names",
    "checker",
    "class_names",
    "fingerprint",
    "is_heap",
    "kept_descriptors",
    "list_files",
    "list_pictures",
    "pixels",
    "read_folder",
    "read_heap",
    "require_clean",
    "shrink",
    "stored_pictures",
]
