"""Near-duplicates among the pictures of a finished run, and in which splits the split put them."""

import collections
import dataclasses

import numpy as np
from jaxtyping import UInt8

from jaxgear.data.folder import Folder
from jaxgear.data.folder.names import ALL
from jaxgear.data.images import letterbox
from jaxgear.evaluation.finished import FinishedRun, SplitRow

GROUPS, MEMBERS = 8, 6  # groups that are shown, and pictures of each
THUMBNAIL = 192  # pixels


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates, and in which splits the split put them."""

    groups: int  # with more than one picture
    pictures: dict[str, int]  # in such groups, by split
    straddling: int  # groups with pictures on two of train, val and test: 0, or the split is wrong
    examples: list[list[tuple[SplitRow, UInt8[np.ndarray, "T T 3"]]]]


def find_near_duplicates(run: FinishedRun, folder: Folder) -> NearDuplicates:
    """Those that `splits.json` lists; examples are of pictures that are still in `folder`."""
    records = {record.sha256: record for record in folder.records}
    members: dict[str, list[SplitRow]] = collections.defaultdict(list)
    for picture in run.pictures:
        members[picture.group].append(picture)
    groups = [found for found in members.values() if len(found) > 1]
    groups.sort(key=_telling)
    splits = collections.Counter(picture.split for found in groups for picture in found)
    kept = [{picture.split for picture in found} - {"left_out"} for found in groups]
    examples = [
        [
            (picture, letterbox(folder.load(records[picture.sha256]), THUMBNAIL))
            for picture in found[:MEMBERS]
            if picture.sha256 in records
        ]
        for found in groups[:GROUPS]
    ]
    return NearDuplicates(
        groups=len(groups),
        pictures={split: splits[split] for split in ALL},
        straddling=sum(len(found) > 1 for found in kept),
        examples=[shown for shown in examples if shown],
    )


def _telling(group: list[SplitRow]) -> tuple:
    """Sorts groups that are tested on ahead, and among them those that were cut, and large ones."""
    splits = {picture.split for picture in group}
    return not splits & {"val", "test"}, -len(splits), -len(group), group[0].path
