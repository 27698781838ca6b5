"""Near-duplicates among the images of a finished run, and their splits."""

import collections
import dataclasses

import numpy as np
from jaxtyping import UInt8

from jaxgear.data.folder import Folder
from jaxgear.data.folder.names import ALL
from jaxgear.data.images import letterbox
from jaxgear.data.recorded import SplitRow
from jaxgear.evaluation.finished import FinishedRun

GROUPS, MEMBERS = 8, 6  # groups that are shown, and pictures of each
THUMBNAIL = 192  # pixels


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Groups of near-duplicates, and their splits."""

    groups: int  # with more than one picture
    pictures: dict[str, int]  # images in such groups, by split
    straddling: int  # groups with images in two of train, val and test; should be 0
    examples: list[list[tuple[SplitRow, UInt8[np.ndarray, "T T 3"]]]]


def find_near_duplicates(run: FinishedRun, folder: Folder) -> NearDuplicates:
    """Near-duplicates by `splits.json`. Examples are images that are still in `folder`."""
    records = {record.sha256: record for record in folder.records}
    members: dict[str, list[SplitRow]] = collections.defaultdict(list)
    for picture in run.pictures.in_groups():
        members[picture.group].append(picture)
    groups = [group for group in members.values() if len(group) > 1]
    groups.sort(key=_telling)
    counts = collections.Counter(picture.split for group in groups for picture in group)
    kept = [{picture.split for picture in group} - {"left_out"} for group in groups]
    examples = [
        [
            (picture, letterbox(folder.load(records[picture.sha256]), THUMBNAIL))
            for picture in group[:MEMBERS]
            if picture.sha256 in records
        ]
        for group in groups[:GROUPS]
    ]
    return NearDuplicates(
        groups=len(groups),
        pictures={split: counts[split] for split in ALL},
        straddling=sum(len(splits) > 1 for splits in kept),
        examples=[shown for shown in examples if shown],
    )


def _telling(group: list[SplitRow]) -> tuple:
    """Sort key: groups that are evaluated on first, then those in more splits, then larger ones."""
    splits = {picture.split for picture in group}
    return not splits & {"val", "test"}, -len(splits), -len(group), group[0].path
