"""Parts of an HTML page that is complete in one file. All text is escaped here."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Nothing is fetched and no script runs, whatever the names of classes and files are.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

text = html.escape


def document(title: str, sections: Mapping[str, tuple[str, str]], head: str) -> str:
    """A page: `head` (HTML) under the title, then sections as {id: (heading, HTML)}."""
    css = (
        resources.files("jaxgear.evaluation.report")
        .joinpath("report.css")
        .read_text(encoding="utf-8")
    )
    links = "".join(
        f'<li><a href="#{key}">{text(name)}</a></li>' for key, (name, _) in sections.items()
    )
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{text(name)}</h2>'
        f"{content}</section>\n"
        for key, (name, content) in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        # An empty icon, or browsers would ask the server for one.
        '<link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{css}</style></head>\n<body>"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header><h1>{text(title)}</h1>{head}</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        f'<main id="main" tabindex="-1">{body}</main></body></html>\n'
    )


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    kind: str = "",
    styles: Mapping[tuple[int, int], str] | None = None,
) -> str:
    """A table that scrolls inside its own box. The first cell of each row is its header.

    `styles` are class and style attributes by (row, column), columns counted after the header.
    """
    heads = "".join(f'<th scope="col"><span>{text(cell)}</span></th>' for cell in header)
    lines = []
    for i, (first, *cells) in enumerate(rows):
        inner = "".join(
            f"<td{(styles or {}).get((i, j), '')}>{text(cell)}</td>" for j, cell in enumerate(cells)
        )
        lines.append(f'<tr><th scope="row">{text(first)}</th>{inner}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}">'
        f'<table class="{kind}"><caption>{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    inner = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{inner}</dl>\n'


def paragraph(sentence: str) -> str:
    """One paragraph."""
    return f"<p>{text(sentence)}</p>\n"


def fold(summary: str, content: str) -> str:
    """Content (HTML) that a click unfolds."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>\n"


def code(source: str) -> str:
    """Source code."""
    return f'<pre class="scroll" tabindex="0"><code>{text(source)}</code></pre>'


def figure(content: str, caption: str) -> str:
    """A figure (HTML) and its caption."""
    return f"<figure>{content}<figcaption>{text(caption)}</figcaption></figure>\n"


def picture(pixels: UInt8[np.ndarray, "H W 3"], alt: str) -> str:
    """An image inside the page, as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{text(alt)}" '
        f'width="{width}" height="{height}">'
    )
