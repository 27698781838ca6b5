"""The review in a notebook, without a browser: its buttons are clicked by the test."""

import io
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from reviews import run_with_pictures, write_picture
from small_bundle import CLASSES

import jaxgear
from jaxgear.data import crops
from jaxgear.data.labels import Correction, append, read_corrections
from jaxgear.errors import UsageError

pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install -e '.[notebook]'")
AXES, BOOTS, JACKETS = CLASSES
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    run_with_pictures(folder, each=2, model=True)
    (folder / "data" / JACKETS / "001.png").write_text("hello")
    return folder


@pytest.fixture
def file(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.fixture
def review(folder, file):
    review = jaxgear.review(folder / "run", labels=file, by="ana")
    yield review
    review.close()


def test_buttons_decide_and_the_table_holds_the_decisions(review, file):
    assert f"{AXES}/000.png" in review.facts.value
    assert review.progress.value == "0 of 6 done"
    review.classes[BOOTS].click()
    assert f"{AXES}/001.png" in review.facts.value
    review.accept.click()
    review.reason.value = " blurred "
    review.remove.click()
    assert review.progress.value == "3 of 6 done"
    decided = [(r.path, r.action, r.label, r.by) for r in review.corrections]
    assert decided == [
        (f"{AXES}/000.png", "relabel", BOOTS, "ana"),
        (f"{AXES}/001.png", "relabel", AXES, "ana"),
        (f"{BOOTS}/000.png", "remove", "blurred", "ana"),
    ]
    assert tuple(review.corrections) == read_corrections(file)
    assert review.reason.value == ""


def test_a_box_is_corrected_in_numbers_and_shown_before_it_is_saved(folder, tmp_path, file):
    photograph = tmp_path / "new" / "a.png"
    write_picture(photograph, 7, (80, 60))
    queue = tmp_path / "crops.csv"
    queue.write_text(
        "path,left,top,right,bottom,class,probability\n"
        f"{photograph},0.1,0.2,0.5,0.6,{AXES},0.9\n{photograph},0,0,1,1,none,0.3\n"
    )
    review = jaxgear.review(folder / "run", photograph.parent, queue=queue, labels=file)
    left, _, right, _ = review.sides.fields
    assert [field.value for field in review.sides.fields] == [0.1, 0.2, 0.5, 0.6]
    right.value = 0.05  # left of the left side: no box
    assert review.sides.corrected is None
    right.value = 0.75
    with PIL.Image.open(io.BytesIO(review.picture.value)) as shown:
        assert shown.size == (52, 24)  # 0.65 of 80 pixels, 0.4 of 60
    review.accept.click()
    added, removed = read_corrections(file)
    assert crops.parted(added.path) == (str(photograph), (0.1, 0.2, 0.75, 0.6))
    assert (added.label, added.action, removed.action) == (AXES, "add", "remove")
    assert [field.value for field in review.sides.fields] == [0, 0, 1, 1]  # no gear was found
    left.value = 0.5
    review.classes[BOOTS].click()
    *_, added, removed = read_corrections(file)
    assert crops.parted(added.path) == (str(photograph), (0.5, 0, 1, 1))
    assert (removed.action, removed.path) == ("remove", str(photograph))
    review.undo.click()
    assert review.progress.value == "1 of 2 done"
    review.close()


def test_pictures_that_are_no_crops_have_no_box(review):
    assert {field.layout.display for field in review.sides.fields} == {"none"}
    review.sides.fields[0].value = 0.5
    review.classes[BOOTS].click()
    (row,) = review.corrections
    assert (row.action, row.label) == ("relabel", BOOTS)


def test_undo_goes_back_to_the_picture(review, file):
    review.classes[BOOTS].click()
    review.classes[JACKETS].click()
    review.undo.click()
    assert f"{AXES}/001.png" in review.facts.value
    review.undo.click()
    assert f"{AXES}/000.png" in review.facts.value
    assert review.progress.value == "0 of 6 done"
    assert [r.label for r in read_corrections(file)] == [BOOTS, JACKETS, AXES, AXES]
    review.undo.click()
    assert review.message.value == "Nothing to undo."


def test_a_decision_of_somebody_else_is_shown_and_not_overwritten(review, file):
    theirs = Correction(f"{AXES}/000.png", "", "relabel", JACKETS, "ben", "2026")
    append(file, [theirs])
    review.classes[BOOTS].click()
    assert "ben was faster" in review.message.value
    assert JACKETS in review.facts.value
    assert read_corrections(file) == (theirs,)
    review.classes[BOOTS].click()
    assert read_corrections(file)[-1].label == BOOTS


def test_only_what_is_to_do_is_shown(review):
    review.classes[BOOTS].click()
    review.show.value = "open"
    assert f"{AXES}/001.png" in review.facts.value
    review.back.click()
    assert review.message.value == "This is the first picture."
    review.show.value = "done"
    assert f"{AXES}/000.png" in review.facts.value


def test_the_picture_and_where_the_model_looked(review):
    with PIL.Image.open(io.BytesIO(review.picture.value)) as picture:
        assert picture.size == (24, 18)
    before = review.picture.value
    review.map.value = True
    with PIL.Image.open(io.BytesIO(review.picture.value)) as picture:
        assert picture.size == (512, 512)
    review.map.value = False
    assert review.picture.value == before
    assert "model" in review.facts.value


def test_an_unreadable_picture_can_only_be_removed(review, file):
    for _ in range(5):
        review.forth.click()
    assert "text, not a picture" in review.facts.value
    assert review.picture.value == b""
    review.classes[AXES].click()
    assert "it can only be removed" in review.message.value
    review.remove.click()
    assert [r.action for r in read_corrections(file)] == ["remove"]


def test_new_pictures_are_added_with_their_class(folder, tmp_path, file):
    write_picture(tmp_path / "new" / "<b>1.png", 3)
    review = jaxgear.review(str(folder / "run"), tmp_path / "new", labels=file, by="ana")
    assert "&lt;b&gt;1.png" in review.facts.value
    review.classes[BOOTS].click()
    (row,) = review.corrections
    assert (row.action, row.label, row.path) == ("add", BOOTS, str(tmp_path / "new/<b>1.png"))
    review.close()


def test_many_classes_are_typed(tmp_path, file):
    classes = tuple(f"kind_{number:02d}" for number in range(40))
    run = run_with_pictures(tmp_path, each=1, classes=classes)
    review = jaxgear.review(run, labels=file, by="ana")
    review.typed.value = "kind_39"
    review.take.click()
    review.typed.value = "yaks"
    review.take.click()
    assert review.message.value == "No such class."
    assert [r.label for r in review.corrections] == ["kind_39"]
    review.close()


def test_a_notebook_shows_it(review):
    assert "application/vnd.jupyter.widget-view+json" in review._repr_mimebundle_()


def test_without_ipywidgets_it_says_what_to_install(folder, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UsageError, match=r"pip install 'jaxgear\[notebook\]'"):
        jaxgear.review(folder / "run", labels=file, by="ana")


def test_the_widget_needs_no_server():
    code = (
        "import sys, jaxgear; jaxgear.review; "
        "sys.exit(sorted({'starlette', 'uvicorn', 'ipywidgets'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
