"""Turns a folder of photographs into checked records: paths in, `Folder` out.

read.py is where to start. walk.py lists files by class and split. records.py has the records, and
columns.py one field of all of them. picture_cache.py keeps decoded images between runs. clean.py
handles unusable files. lazy.py makes images on demand.
"""

from jaxgear.data.folder.clean import OnBad, require_clean
from jaxgear.data.folder.columns import (
    Alike,
    Facts,
    counts_of_labels,
    counts_of_splits,
    distinct_groups,
    facts_about,
    facts_of,
    fingerprint,
    first_eight,
    hashes_of,
    labels_of,
    mixed,
    of_split,
    paths_of,
    rows_of_split,
    split_numbers,
    splits_and_labels,
    taken,
)
from jaxgear.data.folder.lazy import LazyPictures
from jaxgear.data.folder.picture_cache import MaskCache, PictureCache, kept_descriptors, shrink
from jaxgear.data.folder.read import (
    HEAP,
    Folder,
    assemble,
    check_heap,
    check_listing,
    checker,
    class_names,
    is_heap,
    pixels,
    read_folder,
    read_heap,
    stored_pictures,
)
from jaxgear.data.folder.records import Column, Record, Records, Table, path_at
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
    "Alike",
    "Candidate",
    "Column",
    "Facts",
    "Folder",
    "LazyPictures",
    "Listing",
    "MaskCache",
    "OnBad",
    "PictureCache",
    "Record",
    "Records",
    "Refused",
    "Table",
    "assemble",
    "check_heap",
    "check_listing",
    "check_names",
    "checker",
    "class_names",
    "counts_of_labels",
    "counts_of_splits",
    "distinct_groups",
    "facts_about",
    "facts_of",
    "fingerprint",
    "first_eight",
    "hashes_of",
    "is_heap",
    "kept_descriptors",
    "labels_of",
    "list_files",
    "list_pictures",
    "mixed",
    "of_split",
    "path_at",
    "paths_of",
    "pixels",
    "read_folder",
    "read_heap",
    "require_clean",
    "rows_of_split",
    "shrink",
    "split_numbers",
    "splits_and_labels",
    "stored_pictures",
    "taken",
]
