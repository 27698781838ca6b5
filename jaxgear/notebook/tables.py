"""HTML of tables, bars and pictures for notebooks. All text is escaped here.

Colours are left to the notebook, so that all is readable on light and dark.
"""

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_LEFT, _RIGHT = ' style="text-align: left"', ' style="text-align: right"'


class Facts:
    """An object that shows its `_facts`: as one line of text, and as a table in a notebook.

    A dataclass needs `repr=False`, or it shows its fields instead.
    """

    def _facts(self) -> Mapping[str, str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        text = ", ".join(f"{name}: {value}" for name, value in self._facts().items())
        return f"<{type(self).__name__}, {text}>"

    def _repr_html_(self) -> str:
        return facts(type(self).__name__, self._facts())


def facts(title: str, pairs: Mapping[str, str]) -> str:
    """A table of two columns with its title above."""
    rows = "".join(
        f"<tr><th{_LEFT}>{html.escape(name)}</th><td{_LEFT}>{html.escape(value)}</td></tr>"
        for name, value in pairs.items()
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its title above; all columns but the first are aligned to the right."""
    sides = [_LEFT, *[_RIGHT] * (len(header) - 1)]
    head = "".join(
        f"<th{side}>{html.escape(name)}</th>" for side, name in zip(sides, header, strict=True)
    )
    body = "".join(
        f"<tr><th{_LEFT}>{html.escape(first)}</th>"
        + "".join(f"<td{_RIGHT}>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def crossed(
    title: str, rows: Sequence[str], columns: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> str:
    """A table of how often each pair of a row and a column occurs, with sums; no empty columns."""
    counts = Counter(pairs)
    columns = [name for name in columns if any(counts[row, name] for row in rows)]
    lines = [[counts[row, name] for name in columns] for row in rows]
    lines.append([sum(column) for column in zip(*lines, strict=True)])
    cells = [
        [name, *map(str, line), str(sum(line))]
        for name, line in zip([*rows, "all"], lines, strict=True)
    ]
    return table(title, ["", *columns, "all"], cells)


def bars(title: str, shares: Iterable[tuple[str, float]]) -> str:
    """A table of names and shares (0 to 1), each share as a bar and a number."""
    rows = "".join(
        f"<tr><th{_LEFT}>{html.escape(name)}</th>"
        f'<td><meter value="{share:.4f}" max="1"></meter></td><td{_RIGHT}>{share:.2f}</td></tr>'
        for name, share in shares
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"


def picture(image: UInt8[np.ndarray, "H W 3"], alt: str) -> str:
    """An image as HTML, with its pixels inside."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">'
