"""Splits records into train, validation and test; no group of near-duplicates straddles two splits.

assign.py is where to start. near_duplicates.py finds near-duplicates by hashing.py, and stages.py
finds them on many machines; groups.py makes groups of them. clean.py leaves out unusable files and
copies that contradict each other. known.py lets a bundle recognise the images of its data set.
"""

from jaxgear.data.splits.assign import LEFT_OUT, missing_classes, split_folder
from jaxgear.data.splits.clean import OnBad, require_clean
from jaxgear.data.splits.groups import (
    NEAR_DUPLICATES,
    are_alike,
    near_duplicate_groups,
    near_duplicate_pairs,
    near_duplicates_across,
    near_duplicates_in_two_classes,
    near_duplicates_of,
)
from jaxgear.data.splits.known import KnownPictures

__all__ = [
    "LEFT_OUT",
    "NEAR_DUPLICATES",
    "KnownPictures",
    "OnBad",
    "are_alike",
    "missing_classes",
    "near_duplicate_groups",
    "near_duplicate_pairs",
    "near_duplicates_across",
    "near_duplicates_in_two_classes",
    "near_duplicates_of",
    "require_clean",
    "split_folder",
]
