"""What a run records of its set in `splits.json`, and how a set differs from the recorded one.

write.py is where to start: all images as JSON, or as columns beside it. read.py reads both as
`Recorded`. changes.py compares a set with it when a run is resumed.
"""

from jaxgear.data.recorded.changes import (
    changed_pictures,
    known_pictures,
    unchanged,
    with_recorded_labels,
    without_trained,
)
from jaxgear.data.recorded.read import Pictures, Recorded, SplitRow
from jaxgear.data.recorded.write import describe, describe_unlabelled, write_splits

__all__ = [
    "Pictures",
    "Recorded",
    "SplitRow",
    "changed_pictures",
    "describe",
    "describe_unlabelled",
    "known_pictures",
    "unchanged",
    "with_recorded_labels",
    "without_trained",
    "write_splits",
]
