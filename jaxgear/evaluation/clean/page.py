"""The HTML page of what `find_suspicious` found: a section for each kind, the worst first."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from jaxgear.data.folder import Folder
from jaxgear.data.images import letterbox
from jaxgear.evaluation.clean.find import KINDS, Findings, Suspicion
from jaxgear.evaluation.report import page
from jaxgear.text import printable

SHOWN = 120  # pictures of a kind
THUMBNAIL = 192  # pixels

_HEADINGS = {
    "label": "Labels",
    "duplicate": "Duplicates",
    "outlier": "Outliers",
    "quality": "Quality",
}
_MEANINGS = {
    "label": "A classifier that was trained on other pictures finds another class likelier. The "
    "score is (1 + probability of the suggestion - probability of the label) / 2.",
    "duplicate": "The same photograph, or nearly, has two labels: at least one is wrong. The "
    "suggestion is the likelier one, and it may be the label that the picture has.",
    "outlier": "These pictures are far from all others. They may show something else, or something "
    "rare.",
    "quality": "These pictures are dark, blurred, blank, tiny, or of an odd shape.",
}


def render(findings: Findings, title: str) -> str:
    """The whole page; it needs no other file.

    Raises:
        DataError: a picture changed since it was checked.
    """
    counts = findings.counts()
    sections = {}
    for kind in KINDS:
        found = [suspicion for suspicion in findings.suspicions if suspicion.kind == kind]
        sections[kind] = (_HEADINGS[kind], _section(findings.folder, kind, found))
    head = page.facts(
        [
            ("Pictures", f"{len(findings.folder.records):,}"),
            *((_HEADINGS[kind], f"{counts[kind]:,}") for kind in KINDS),
            ("Wrong labels, estimated", f"{findings.estimated:.0f}"),
        ]
    )
    return page.document(title, sections, head)


def _section(folder: Folder, kind: str, found: Sequence[Suspicion]) -> str:
    if not found:
        return page.paragraph("None found.")
    shown = found[:SHOWN]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cards = list(pool.map(lambda suspicion: _card(folder, suspicion), shown))
    more = ""
    if len(shown) < len(found):
        more = page.paragraph(f"The first {len(shown)} of {len(found)}; the table has all.")
    return page.paragraph(_MEANINGS[kind]) + more + f'<ul class="cards">{"".join(cards)}</ul>'


def _card(folder: Folder, suspicion: Suspicion) -> str:
    images = ""
    for record in (suspicion.record, suspicion.beside):
        if record is not None:
            alt = f"{folder.classes[record.label]}, {printable(record.path)}"
            images += page.picture(letterbox(folder.load(record), THUMBNAIL), alt)
    change = suspicion.suggested not in ("", suspicion.label)
    verdict = f"{suspicion.label} → {suspicion.suggested}" if change else suspicion.label
    amiss = " class=amiss" if change else ""
    detail = f"{printable(suspicion.reason)}; score {suspicion.score:.2f}"
    return (
        f'<li><figure><div class="row">{images}</div><figcaption>'
        f"<strong{amiss}>{page.text(verdict)}</strong>"
        f"{page.text(detail)}<br>{page.text(printable(suspicion.record.path))}"
        "</figcaption></figure></li>\n"
    )
