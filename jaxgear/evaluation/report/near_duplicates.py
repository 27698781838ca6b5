"""Near-duplicates among the images of a finished run, and their splits."""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from jaxgear.data.folder import Column, Folder, hashes_of, rows_of_hashes, split_numbers
from jaxgear.data.folder.names import ALL, SPLITS
from jaxgear.data.images import letterbox
from jaxgear.data.recorded import Pictures, SplitRow

GROUPS, MEMBERS = 8, 6  # groups that are shown, and pictures of each
THUMBNAIL = 192  # pixels


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Groups of near-duplicates, and their splits."""

    groups: int  # with more than one picture
    pictures: dict[str, int]  # images in such groups, by split
    straddling: int  # groups with images in two of train, val and test; should be 0
    examples: list[list[tuple[SplitRow, UInt8[np.ndarray, "T T 3"]]]]


def find_near_duplicates(recorded: Pictures, folder: Folder) -> NearDuplicates:
    """Near-duplicates among the images of a run. Examples are images that are still in `folder`."""
    pictures = recorded.in_groups()
    first, group = _groups(pictures)
    places = len(ALL) * group + split_numbers(pictures.splits)
    counts = np.bincount(places, minlength=len(ALL) * len(first)).reshape(-1, len(ALL))
    sizes, splits = counts.sum(axis=1), (counts > 0).sum(axis=1)
    several = counts[sizes > 1]
    evaluated = counts[:, [ALL.index("val"), ALL.index("test")]].any(axis=1)
    # Groups that are evaluated on first, then those in more splits, then larger ones.
    order = np.lexsort((first, -sizes, -splits, ~evaluated, sizes == 1))
    examples = [
        _shown(folder, pictures.take(np.flatnonzero(group == number)[:MEMBERS]))
        for number in order[: min(GROUPS, len(several))]
    ]
    return NearDuplicates(
        groups=len(several),
        pictures=dict(zip(ALL, several.sum(axis=0).tolist(), strict=True)),
        straddling=int(((several[:, : len(SPLITS)] > 0).sum(axis=1) > 1).sum()),
        examples=[shown for shown in examples if shown],
    )


def _groups(pictures: Pictures) -> tuple[Int[np.ndarray, " G"], Int[np.ndarray, " N"]]:
    """The first image of each group, and the number of each image's group."""
    groups = pictures.groups
    values = groups.values if isinstance(groups, Column) else np.array(groups, str)
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    return first, group


def _shown(folder: Folder, pictures: Pictures) -> list[tuple[SplitRow, UInt8[np.ndarray, "T T 3"]]]:
    rows = rows_of_hashes(hashes_of(folder.records), pictures.sha256).tolist()
    return [
        (picture, letterbox(folder.load(folder.records[row]), THUMBNAIL))
        for picture, row in zip(pictures, rows, strict=True)
        if row >= 0
    ]
