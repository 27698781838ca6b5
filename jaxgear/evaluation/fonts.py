"""Text that fits its place and has a glyph for every letter, whatever a file is called."""

import functools
import unicodedata
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg

BASE = "DejaVu Sans"  # comes with matplotlib
_INCH = 72  # points
_MISSING = "□"
# Fonts of pictures (emoji), which matplotlib cannot draw, and of boxes that name a script.
_UNFIT = ("Color", "Emoji", "LastResort", "Last Resort")


def style(text: str, size: float, bold: bool = False) -> dict[str, Any]:
    """Arguments of a matplotlib text: fonts that have the letters, and no formulas in dollars."""
    return {
        "fontfamily": _families(text),
        "fontsize": size,
        "fontweight": "bold" if bold else "normal",
        "parse_math": False,
    }


def fit(text: str, inches: float, size: float, bold: bool = False) -> str:
    """`drawable` text cut in the middle, where names differ least, until it is no wider."""
    text = drawable(text)
    keep = len(text)
    while _width(shown := _cut(text, keep), size, bold) > inches * _INCH and keep > 2:
        keep -= max(1, keep // 20)
    return shown


def drawable(text: str) -> str:
    """Composed letters (NFC), and a box for those that no installed font has."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c == "\n" or _family(c) else _MISSING for c in text)


def _cut(text: str, keep: int) -> str:
    if keep >= len(text):
        return text
    start = (keep + 1) // 2
    return f"{text[:start]}…{text[len(text) - (keep - start) :]}"


def _width(text: str, size: float, bold: bool) -> float:
    """In points."""
    weight = "bold" if bold else "normal"
    properties = font_manager.FontProperties(family=_families(text), size=size, weight=weight)
    return _renderer().get_text_width_height_descent(text, properties, ismath=False)[0]


@functools.cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, _INCH)


def _families(text: str) -> list[str]:
    return list(dict.fromkeys([BASE, *filter(None, map(_family, text))]))


@functools.cache
def _family(letter: str) -> str | None:
    """An installed font with a glyph for the letter, matplotlib's own first."""
    if ord(letter) in _letters(font_manager.findfont(BASE)):
        return BASE
    for font in font_manager.fontManager.ttflist:
        if not any(word in font.name for word in _UNFIT) and ord(letter) in _letters(font.fname):
            return font.name
    return None


@functools.cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that is listed and gone, or that FreeType cannot read
        return frozenset()
