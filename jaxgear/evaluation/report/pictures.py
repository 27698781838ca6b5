"""The sections of a report that show images."""

from jaxgear.data.folder.names import ALL
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.no_gear.refusal import ACCEPTS_ALL
from jaxgear.evaluation.report import page
from jaxgear.evaluation.report.findings import Findings, Shown
from jaxgear.evaluation.report.near_duplicates import NearDuplicates

_SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test", "left_out": "left out"}


def losses(findings: Findings) -> str:
    """The section of images whose label is least likely, with heat maps."""
    return page.paragraph(
        "Test and validation pictures whose label the network finds least likely, worst first: "
        "look here for wrong labels. The map beside each shows what speaks for the predicted "
        f"class ({findings.seen_by}): red most, then yellow and green."
    ) + _cards(findings.misses)


def refusals(findings: Findings) -> str:
    """The section of test images that are refused as no gear."""
    if findings.refusals is None:
        return page.paragraph(f"This model {ACCEPTS_ALL}.")
    refused, summary = findings.refusals, findings.summary
    n, least = summary["n"], summary["accept_from"]
    parts = [
        page.paragraph(
            f"A picture with a score below {least:.3f} is taken for no gear, and its class is "
            f"none. The score is the largest logit; {refused.promise}. "
            "All test pictures show gear, so each refused one is a mistake. Other figures of this "
            "page count every picture by its likeliest class, refused or not."
        ),
        page.facts(
            [
                ("Gear from a score of", f"{least:.3f}"),
                ("Test pictures refused", f"{refused.n:,} of {n:,}"),
                ("Accepted", f"{summary['accepted']:.3f}"),
                ("Refused, with the right class", f"{refused.right:,} of {refused.n:,}"),
            ]
        ),
    ]
    if refused.n:
        count = f"The {len(refused.lowest)} lowest scores" if refused.n > 1 else "Its score"
        parts.append(page.paragraph(f"{count}, and a map of what speaks for the likeliest class:"))
        parts.append(_cards(refused.lowest))
    return "".join(parts)


def _cards(shown: list[Shown]) -> str:
    cards = ""
    for item in shown:
        picture = item.picture
        alt = f"{picture.name}, {picture.path}"
        images = page.picture(item.image, alt)
        if item.overlay is not None:
            images += page.picture(item.overlay, f"where the network saw {item.predicted}")
        wrong = item.predicted != picture.name
        verdict = item.verdict + (f" (most like {item.predicted})" if item.refused else "")
        if wrong:
            verdict += f", labelled {picture.name} {item.label_prob:.2f}"
        elif not item.refused:
            verdict += " (right)"
        amiss = " class=amiss" if wrong or item.refused else ""
        cards += (
            f'<li><figure><div class="row">{images}</div><figcaption>'
            f"<strong{amiss}>{page.text(verdict)}</strong>"
            f"{page.text(picture.path)} ({_SPLIT_NAMES[picture.split]}, loss {item.loss:.2f})"
            "</figcaption></figure></li>\n"
        )
    return f'<ul class="cards">{cards}</ul>'


def splits(run: FinishedRun, near: NearDuplicates) -> str:
    """The section of images by class and split, and of near-duplicates."""
    counts = run.pictures.counts()
    rows = [[name, *(str(counts[name, split]) for split in ALL)] for name in run.classes]
    rows.append(["all", *(str(sum(counts[n, split] for n in run.classes)) for split in ALL)])
    parts = [
        page.table("Pictures by class and split", ["class", *_SPLIT_NAMES.values()], rows),
        "<h3>Near-duplicates</h3>",
    ]
    if not near.groups:
        return "".join(parts) + page.paragraph("No two pictures look alike.")
    shown = ", ".join(f"{near.pictures[split]} {_SPLIT_NAMES[split]}" for split in ALL)
    parts.append(
        page.paragraph(
            f"{near.groups} groups of pictures that look alike (the same photograph resized, "
            f"re-encoded or recoloured) hold {sum(near.pictures.values())} pictures: {shown}. "
            + (
                "The pictures of a group that are used are in one split; the others are left out."
                if not near.straddling
                else f"{near.straddling} groups have pictures in several splits: the folder's own "
                "splits put them there, which makes the test easier."
            )
        )
    )
    for members in near.examples:
        cells = "".join(
            page.figure(page.picture(image, p.path), f"{_SPLIT_NAMES[p.split]}: {p.path}")
            for p, image in members
        )
        parts.append(f'<div class="row group">{cells}</div>')
    return "".join(parts)
