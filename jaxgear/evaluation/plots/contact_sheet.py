"""Draws pairs of near-duplicates side by side, to check them by eye."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxgear.data.folder import Folder, Record, grouped, taken
from jaxgear.data.images import letterbox
from jaxgear.evaluation.plots import figures as plots
from jaxgear.text import printable

MOST = 24  # pairs
PIXELS = 240


def pairs(folder: Folder, groups: Sequence[str]) -> list[tuple[Record, Record]]:
    """A pair of images from each group of several: of different classes or splits if possible.

    Pairs of different classes come first, then pairs of different splits, then the rest.
    """
    members = defaultdict(list)
    groups = grouped(groups)
    rows = np.sort(groups.runs.rows)  # of groups of several, and maybe a few more
    records = taken(folder.records, rows)
    for record, group in zip(records, groups.values[rows].tolist(), strict=True):
        members[group].append(record)
    chosen = []
    for first, *others in members.values():
        if others:
            chosen.append((first, max(others, key=lambda other: _differ(first, other))))
    return sorted(chosen, key=lambda pair: _differ(*pair), reverse=True)


def _differ(a: Record, b: Record) -> tuple[bool, bool]:
    return a.label != b.label, a.split != b.split


def contact_sheet(folder: Folder, groups: Sequence[str]) -> plots.Figure | None:
    """The first `MOST` of `pairs`, three pairs a row; None if there are none.

    Raises:
        DataError: an image changed since the folder was read.
    """
    alike = pairs(folder, groups)
    if not alike:
        return None
    shown = alike[:MOST]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        records = [record for pair in shown for record in pair]
        images = list(pool.map(lambda record: letterbox(folder.load(record), PIXELS), records))
    tiles = []
    for number, (record, image) in enumerate(zip(records, images, strict=True)):
        classes, splits = _differ(*shown[number // 2])
        warning = "another class" if classes else "another split" if splits else ""
        name = printable(record.path)
        label = folder.classes[record.label]
        tiles.append(plots.Tile(image, f"{number // 2 + 1}", label, name, warning, bool(warning)))
    title = f"{len(alike)} pairs that look alike"
    if len(shown) < len(alike):
        title = f"The first {len(shown)} of {title}"
    return plots.grid(tiles, title, columns=min(6, len(tiles)))
