"""Parts of the review without a server."""

from small_bundle import CLASSES, make_bundle

from jaxgear.data.labels import Correction
from jaxgear.serving.review.boxes import CORRECTED, with_box
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.files import PictureFiles
from jaxgear.serving.review.pictures import Pictures
from jaxgear.serving.review.predictions import Predictions


def row(action, label, when="2026-11-30T12:00:00+00:00"):
    return Correction("a.jpg", "", action, label, "ana", when)


def test_what_is_looked_at_now_is_predicted_first():
    """Also if it was asked for before, and waits behind another page."""
    files = object.__new__(PictureFiles)
    files.pictures, files.errors = range(9), {}
    predictions = Predictions(make_bundle(), files)
    predictions.close()  # nothing is predicted, so all waits
    for page in ([0, 1], [2, 3], [1, 0, 1]):
        predictions.want(page)
    assert list(predictions._waiting) == [1, 0, 2, 3]


def test_undoing_a_typed_reason_undoes_no_other_picture():
    """The reason may be the one that a corrected box has."""
    before, undo = row("relabel", CLASSES[0]), row("relabel", CLASSES[1])
    pictures = object.__new__(Pictures)
    typed = [before, row("remove", CORRECTED, "2026-11-30T12:00:01+00:00")]
    assert with_box(undo, Decision(0, 2, "undo", row=2), pictures, typed) == (undo,)
    assert with_box(undo, Decision(0, 2, "undo", row=9), pictures, typed) == (undo,)
    box = [row("add", CLASSES[0]), row("remove", CORRECTED)]
    removed, last = with_box(undo, Decision(0, 2, "undo", row=2), pictures, box)
    assert (removed.action, last) == ("remove", undo)
