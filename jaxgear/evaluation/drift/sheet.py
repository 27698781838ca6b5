"""Draws the new pictures that are least like those of the run."""

import os
from concurrent.futures import ThreadPoolExecutor

from jaxgear.data.images import letterbox
from jaxgear.evaluation.drift.find import Drift
from jaxgear.evaluation.plots import figures as plots
from jaxgear.text import printable

PIXELS = 240


def foreign_sheet(drift: Drift) -> plots.Figure | None:
    """A grid of `drift.most_foreign`, the most foreign first; None if there are none.

    Raises:
        DataError: a picture changed since the folder was read.
    """
    shown = drift.most_foreign
    if not shown:
        return None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda one: letterbox(drift.folder.load(one.record), PIXELS), shown))
    tiles = [
        plots.Tile(
            image,
            f"{place}",
            f"farther than {one.farther_than:.0%} of those",
            printable(one.record.path),
            f"most like {one.predicted}",
        )
        for place, (one, image) in enumerate(zip(shown, images, strict=True), 1)
    ]
    return plots.grid(
        tiles,
        f"The {len(shown)} of {drift.n} new pictures that are least like the {drift.reference} "
        f"known ones (p = {drift.p_value:.4f})",
        columns=min(6, len(tiles)),
    )
