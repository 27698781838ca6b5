"""Records to train, validation and test splits that no near-duplicate straddles.

assign.py is where to start. near_duplicates.py finds images that look alike; groups.py makes groups
of them; known.py is what a bundle keeps, to know the images of its data again.
"""

from jaxgear.data.splits.assign import (
    LEFT_OUT,
    missing_classes,
    near_duplicates_across,
    near_duplicates_in_two_classes,
    split_folder,
)
from jaxgear.data.splits.groups import NEAR_DUPLICATES, near_duplicate_groups
from jaxgear.data.splits.known import KnownPictures

__all__ = [
    "LEFT_OUT",
    "NEAR_DUPLICATES",
    "KnownPictures",
    "missing_classes",
    "near_duplicate_groups",
    "near_duplicates_across",
    "near_duplicates_in_two_classes",
    "split_folder",
]
