"""Fits text to a width, and finds fonts that have a glyph for each of its letters."""

import functools
import logging
import unicodedata
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

BASE = "DejaVu Sans"  # comes with matplotlib
_INCH = 72  # points
_FINE = 4  # pixels a point: at 1, letters would snap to pixels
_MISSING = "□"
# Fonts of pictures (emoji), which matplotlib cannot draw, and of boxes that name a script.
_UNFIT = ("Color", "Emoji", "LastResort", "Last Resort")

# Matplotlib warns on stderr for each font without the wanted weight; another weight is fine.
logging.getLogger(font_manager.__name__).addFilter(lambda record: "weight" not in record.msg)


def style(text: str, size: float, bold: bool = False) -> dict[str, Any]:
    """Arguments of a matplotlib text: fonts that have its letters, and `$` as a plain letter."""
    return {
        "fontfamily": _families(text, bold),
        "fontsize": size,
        "fontweight": _weight(bold),
        "parse_math": False,
    }


def fit(text: str, inches: float, size: float, bold: bool = False) -> str:
    """`drawable` text at most `inches` wide, cut in the middle, where names differ least."""
    most = max(2, int(inches * 40))  # more letters than this never fit
    text = drawable(_cut(text, most + 1), bold)
    room = inches * _INCH
    if _width(text, size, bold) <= room:
        return text
    fits, most = 2, min(len(text), most)
    while fits < most:
        keep = (fits + most + 1) // 2
        if _width(_cut(text, keep), size, bold) <= room:
            fits = keep
        else:
            most = keep - 1
    return _cut(text, fits)


def drawable(text: str, bold: bool = False) -> str:
    """Text in composed letters (NFC), with a box for each letter that no installed font has."""
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c == "\n" or _family(c, bold) else _MISSING for c in text)


def _cut(text: str, keep: int) -> str:
    if keep >= len(text):
        return text
    start = (keep + 1) // 2
    return f"{text[:start]}…{text[len(text) - (keep - start) :]}"


def _width(text: str, size: float, bold: bool) -> float:
    """In points."""
    properties = FontProperties(family=_families(text, bold), size=size, weight=_weight(bold))
    return _renderer().get_text_width_height_descent(text, properties, ismath=False)[0] / _FINE


@functools.cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, _FINE * _INCH)


def _weight(bold: bool) -> str:
    return "bold" if bold else "normal"


def _families(text: str, bold: bool) -> list[str]:
    families = (_family(letter, bold) for letter in text)
    return list(dict.fromkeys([BASE, *(name for name in families if name)]))


@functools.cache
def _family(letter: str, bold: bool) -> str | None:
    """An installed font that has the letter in this weight; matplotlib's own is preferred."""
    names = dict.fromkeys([BASE, *(font.name for font in font_manager.fontManager.ttflist)])
    for name in names:
        if not any(word in name for word in _UNFIT) and ord(letter) in _letters(name, bold):
            return name
    return None


@functools.cache
def _letters(family: str, bold: bool) -> frozenset[int]:
    """Code points of the font file that matplotlib uses for a family and weight."""
    properties = FontProperties(family=[family], weight=_weight(bold))
    try:
        path = font_manager.findfont(properties, fallback_to_default=False)
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):  # gone since it was listed, or not readable
        return frozenset()
