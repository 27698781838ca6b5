"""Correcting the box of a crop in a browser: by keyboard alone, and by drawing it."""

import browser as chromium
import pytest
from reviews import reviewing, run_with_pictures, write_picture
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from small_bundle import CLASSES
from test_review_page import current, press, ready, said, tile, wait

from jaxgear.data import crops
from jaxgear.data.labels import read_corrections

AXES, BOOTS, _ = CLASSES
BOX = (0.1, 0.2, 0.5, 0.6)
SIDES = ("left", "top", "right", "bottom")


@pytest.fixture(scope="module")
def browser():
    yield from chromium.chromium()


@pytest.fixture
def photograph(tmp_path):
    write_picture(tmp_path / "new/a.png", 7, (800, 600))
    return tmp_path / "new/a.png"


@pytest.fixture
def page(browser, tmp_path, photograph):
    """The page of two crops of a photograph, the first one shown large."""
    run_with_pictures(tmp_path, model=True)
    sides = ",".join(map(str, BOX))
    queue = tmp_path / "crops.csv"
    queue.write_text(
        "path,left,top,right,bottom,class,probability\n"
        f"{photograph},{sides},{AXES},0.9\n{photograph},0.5,0.5,1.0,1.0,{BOOTS},0.8\n"
        f"{photograph},0.0,0.0,1.0,1.0,none,0.2\n"
    )
    more = {"queue": queue, "labels": tmp_path / "labels.csv"}
    with reviewing(tmp_path / "run", [photograph.parent], **more) as client:
        chromium.resize(browser, 1280, 1400)
        browser.get(f"http://127.0.0.1:{client.port}/")
        ready(browser)
        press(browser, "g")
        wait(lambda: browser.execute_script("return find('photograph').naturalWidth") == 800)
        yield browser
        browser.get("about:blank")


def type_in(page, field, text, then):
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, then)
    ready(page)


def sides_of(page):
    return [float(page.find_element("id", side).get_attribute("value")) for side in SIDES]


def test_a_box_is_corrected_by_keyboard_alone(page, tmp_path, photograph):
    assert current(page) == f"a.png#{','.join(f'{side:.4f}' for side in BOX)}"
    assert sides_of(page) == [*BOX]
    field = page.find_element("id", "right")
    type_in(page, field, "0.05", Keys.TAB)  # left of the left side
    assert said(page).startswith("No box")
    assert sides_of(page) == [*BOX]
    type_in(page, field, "0.75", Keys.ENTER)
    assert sides_of(page) == [0.1, 0.2, 0.75, 0.6]
    press(page, "2")
    added, removed = read_corrections(tmp_path / "labels.csv")
    assert added.path == crops.address(str(photograph), (0.1, 0.2, 0.75, 0.6))
    assert (added.action, added.label) == ("add", BOOTS)
    assert (removed.action, removed.path) == ("remove", crops.address(str(photograph), BOX))
    assert tile(page, 0).find_element("class name", "state").get_property("textContent") == (
        "✓ box corrected"
    )
    assert sides_of(page) == [0.5, 0.5, 1.0, 1.0]  # of the next crop
    press(page, "u")
    assert current(page).endswith("0.5000,0.6000")
    assert page.find_element("id", "count").text == "0 of 3 done"
    assert chromium.errors(page) == []


def test_a_box_is_drawn_on_the_photograph(page, tmp_path):
    frame = page.find_element("id", "frame")
    width, height = frame.size["width"], frame.size["height"]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    draw = ActionChains(page, duration=0)
    draw.move_to_element_with_offset(frame, 0.25 * width, 0.25 * height).click_and_hold()
    draw.move_to_element_with_offset(frame, -0.25 * width, -0.25 * height).release().perform()
    assert sides_of(page) == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.01)
    shown = page.execute_script(
        "const [a, b] = ['frame', 'box'].map((id) => find(id).getBoundingClientRect());"
        "return [(b.left - a.left) / a.width, b.width / a.width]"
    )
    assert shown == pytest.approx([0.25, 0.5], abs=0.02)
    drawn = tuple(sides_of(page))
    page.find_element("id", "accept").click()
    ready(page)
    added, _ = read_corrections(tmp_path / "labels.csv")
    assert crops.parted(added.path)[1] == pytest.approx(drawn)
    assert added.label == AXES


def test_a_photograph_without_gear_gets_a_box(page, tmp_path, photograph):
    for _ in range(2):
        press(page, Keys.ARROW_RIGHT)
    assert current(page) == "a.png"
    assert sides_of(page) == [0, 0, 1, 1]
    type_in(page, page.find_element("id", "top"), "0.4", Keys.ENTER)
    press(page, "2")
    added, removed = read_corrections(tmp_path / "labels.csv")
    assert added.path == crops.address(str(photograph), (0, 0.4, 1, 1))
    assert (added.action, added.label) == ("add", BOOTS)
    assert (removed.action, removed.path) == ("remove", str(photograph))


def test_escape_restores_the_box_and_nothing_is_sent(page, tmp_path):
    field = page.find_element("id", "left")
    type_in(page, field, "0.2", Keys.TAB)
    assert sides_of(page) == [0.2, *BOX[1:]]
    page.execute_script("arguments[0].focus()", field)
    press(page, Keys.ESCAPE)
    assert sides_of(page) == [*BOX]
    press(page, Keys.ENTER)
    (row,) = read_corrections(tmp_path / "labels.csv")
    assert (row.action, row.label) == ("add", AXES)
    assert crops.parted(row.path)[1] == BOX


@pytest.mark.parametrize("width", [360, 1280])
def test_the_box_fits_on_the_screen(page, width):
    chromium.resize(page, width)
    assert chromium.overflow(page) <= 0
    assert page.find_element("id", "crop").is_displayed()
