"""The sections of a report that show pictures."""

from collections import Counter

from jaxgear.evaluation import page
from jaxgear.evaluation.findings import Miss, Twins
from jaxgear.evaluation.finished import SIDES, FinishedRun

_SIDE_NAMES = {"train": "training", "val": "validation", "test": "test", "left_out": "left out"}


def losses(misses: list[Miss]) -> str:
    """The pictures whose label is least likely, and where the network looked."""
    cards = ""
    for miss in misses:
        picture = miss.picture
        alt = f"{picture.name}, {picture.path}"
        images = page.picture(miss.image, alt)
        if miss.overlay is not None:
            images += page.picture(miss.overlay, f"where the network saw {miss.predicted}")
        wrong = miss.predicted != picture.name
        verdict = f"{miss.predicted} {miss.prob:.2f}"
        verdict += f", labelled {picture.name} {miss.label_prob:.2f}" if wrong else " (right)"
        cards += (
            f'<li><figure><div class="row">{images}</div><figcaption>'
            f"<strong{' class=amiss' if wrong else ''}>{page.text(verdict)}</strong>"
            f"{page.text(picture.path)} ({_SIDE_NAMES[picture.side]}, loss {miss.loss:.2f})"
            "</figcaption></figure></li>\n"
        )
    return (
        page.paragraph(
            "Test and validation pictures whose label the network finds least likely, worst first: "
            "look here for wrong labels. Beside each, what spoke for the predicted class "
            "(Grad-CAM): red most, then yellow and green."
        )
        + f'<ul class="cards">{cards}</ul>'
    )


def sides(run: FinishedRun, twins: Twins) -> str:
    """How many pictures are on which side, and how near-duplicates were kept apart."""
    counts = Counter((picture.name, picture.side) for picture in run.pictures)
    rows = [[name, *(str(counts[name, side]) for side in SIDES)] for name in run.classes]
    totals = Counter(picture.side for picture in run.pictures)
    rows.append(["all", *(str(totals[side]) for side in SIDES)])
    parts = [
        page.table("Pictures by class and side", ["class", *_SIDE_NAMES.values()], rows),
        "<h3>Near-duplicates</h3>",
    ]
    if not twins.groups:
        return "".join(parts) + page.paragraph("No two pictures look alike.")
    shown = ", ".join(f"{twins.pictures[side]} {_SIDE_NAMES[side]}" for side in SIDES)
    parts.append(
        page.paragraph(
            f"{twins.groups} groups of pictures that look alike (the same photograph resized, "
            f"re-encoded or recoloured) hold {sum(twins.pictures.values())} pictures: {shown}. "
            + (
                "All that are used of a group are on one side; the others are left out."
                if not twins.straddling
                else f"Of {twins.straddling} groups there are pictures on several sides: the "
                "folder's own sides put them there, and the test is easier for it."
            )
        )
    )
    for members in twins.examples:
        cells = "".join(
            page.figure(page.picture(image, p.path), f"{_SIDE_NAMES[p.side]}: {p.path}")
            for p, image in members
        )
        parts.append(f'<div class="row group">{cells}</div>')
    return "".join(parts)
