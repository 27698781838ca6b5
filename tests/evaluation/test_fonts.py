"""Text fits its place and is drawn without a warning, whatever it is."""

import io
import unicodedata

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxgear.evaluation.plots import fonts


def width(text, size, bold):
    figure = Figure()
    drawn = figure.text(0, 0, text, **fonts.style(text, size, bold))
    return drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / figure.dpi


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("text", ["W" * 60, "rope_0001 " * 20, "größe_ботинок " * 9, "雪の斧" * 30])
def test_is_cut_in_the_middle_until_it_fits(text, bold):
    cut = fonts.fit(text, 2.0, 9, bold)
    assert "…" in cut
    start, end = cut.split("…")
    whole = fonts.drawable(text, bold)
    assert whole.startswith(start)
    assert whole.endswith(end)
    assert 1.6 < width(cut, 9, bold) <= 2.1


def test_short_text_stays():
    assert fonts.fit("rope 0.93", 2.0, 9) == "rope 0.93"
    assert fonts.fit("", 2.0, 9) == ""


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize(
    "text", ["雪の山", "👍🏽 ok", "\U000f0000", "مرحبا", "$x^2$ \\frac", "é\ufe0f"]
)
def test_any_letters_are_drawn_without_a_warning(text, bold, caplog):
    fonts._letters.cache_clear()
    fonts._family.cache_clear()
    figure = Figure()
    shown = fonts.drawable(text, bold)
    figure.text(0, 0, shown, **fonts.style(shown, 10, bold))
    figure.savefig(io.BytesIO())
    assert not caplog.messages


def test_letters_are_composed():
    assert fonts.drawable(unicodedata.normalize("NFD", "größe")) == "größe"


def test_a_letter_of_another_font_is_drawn_with_it():
    """One that matplotlib's STIX has and its DejaVu Sans lacks."""
    more = fonts._letters("STIXGeneral", False) - fonts._letters(fonts.BASE, False)
    letter = chr(min(more))
    assert fonts.drawable(letter) == letter
    assert len(fonts.style(letter, 9)["fontfamily"]) == 2
