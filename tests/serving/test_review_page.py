"""The review in a browser: by keyboard alone, in two tabs, on a phone, and while servers die."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import browser as chromium
import pytest
from reviews import reviewing, run_of, run_with_pictures, write_picture
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from small_bundle import CLASSES

from jaxgear.data.labels import Correction, append, read_corrections
from jaxgear.data.synthetic import write_drawn

ROOT = Path(__file__).parents[2]
AXES, BOOTS, JACKETS = CLASSES
HOSTILE = "<img src=x onerror=document.title='pwned'>.png"


@pytest.fixture(scope="module")
def browser():
    yield from chromium.chromium()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a model and 12 pictures, one of them unreadable."""
    folder = tmp_path_factory.mktemp("page")
    run_with_pictures(folder, model=True)
    (folder / "data" / JACKETS / "003.png").write_text("hello")
    return folder


@pytest.fixture
def file(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.fixture
def page(browser, folder, file):
    """The page of a run's pictures, at 1,280 pixels."""
    with reviewing(folder / "run", labels=file) as client:
        chromium.resize(browser, 1280)
        browser.get(f"http://127.0.0.1:{client.port}/")
        ready(browser)
        yield browser
        browser.get("about:blank")


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def ready(browser):
    """Waits until pictures are shown and every decision is saved."""
    wait(lambda: browser.execute_script("return Boolean(about) && !loading && !unsaved"))


def press(browser, *keys, shift=False):
    """Presses keys, wherever the focus is."""
    actions = ActionChains(browser, duration=0)
    if shift:
        actions.key_down(Keys.SHIFT)
    for key in keys:
        actions.send_keys(key)
    if shift:
        actions.key_up(Keys.SHIFT)
    actions.perform()
    ready(browser)
    assert_focused(browser)


def assert_focused(browser):
    """The focus is on something that can be seen, not lost to the page."""
    found = browser.execute_script(
        "const e = document.activeElement;"
        "return [e.tagName, e.getClientRects().length, e.id || e.className]"
    )
    assert found[0] not in ("BODY", "HTML"), found
    assert found[1], found


def tile(browser, index):
    return browser.execute_script(
        "return pictures.find((one) => one.data.index === arguments[0]).tile", index
    )


def current(browser):
    return browser.execute_script("return pictures[current].data.name")


def said(browser):
    return browser.find_element("id", "status").text


def test_a_run_is_reviewed_by_keyboard_alone(page, file):
    assert current(page) == f"{AXES}/000.png"
    press(page, "2")  # boots
    assert current(page) == f"{AXES}/001.png"
    assert tile(page, 0).find_element("class name", "state").text == "✓ axes → boots"
    press(page, Keys.ENTER)  # its own label is right
    page.find_element("id", "reason").send_keys("blurred")
    press(page, Keys.ENTER)  # in the field: removes with this reason
    press(page, "u")
    assert current(page) == f"{AXES}/002.png"
    press(page, Keys.ARROW_DOWN)  # the group below: boots
    assert current(page).startswith(BOOTS)
    press(page, Keys.HOME, " ")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, shift=True)
    assert said(page) == "3 pictures selected."
    press(page, "3")
    assert page.find_element("id", "count").text == "3 of 12 done"
    press(page, "x")
    page.find_element("id", "grid")
    press(page, Keys.END)
    press(page, "g")
    assert page.find_element("id", "large").is_displayed()
    wait(lambda: page.find_element("id", "unreadable").is_displayed())
    press(page, Keys.ARROW_LEFT)
    press(page, "m")
    loaded = "const i = document.getElementById('picture'); return [i.src, i.naturalWidth]"
    wait(lambda: "/map/" in (found := page.execute_script(loaded))[0] and found[1] == 512)
    assert page.find_element("id", "likeliest").text.count("\n") == 2 * len(CLASSES) - 1
    press(page, "2")
    press(page, Keys.ESCAPE)
    assert page.find_element("id", "grid").is_displayed()
    page.switch_to.active_element.send_keys("?")
    assert page.find_element("id", "keys").is_displayed()
    assert "boots" in page.find_element("id", "key-list").text
    page.find_element("id", "close").click()
    assert not page.find_element("id", "keys").is_displayed()
    assert_focused(page)
    rows = [(r.path, r.action, r.label) for r in read_corrections(file)]
    assert rows == [
        (f"{AXES}/000.png", "relabel", BOOTS),
        (f"{AXES}/001.png", "relabel", AXES),
        (f"{AXES}/002.png", "remove", "blurred"),
        (f"{AXES}/002.png", "relabel", AXES),
        *((f"{AXES}/{number:03d}.png", "relabel", JACKETS) for number in range(3)),
        (f"{AXES}/002.png", "remove", ""),
        (f"{JACKETS}/002.png", "relabel", BOOTS),
    ]
    unreadable = ("/thumbnail/11", "/large/11")
    assert not [e for e in chromium.errors(page) if not any(path in e for path in unreadable)]


def test_what_is_done_can_be_left_out(page, file):
    press(page, "2", "2", "x")
    page.find_element("id", "show").send_keys("to")
    wait(lambda: page.find_element("id", "place").text == "1 to 9 of 9")
    page.find_element("id", "group").send_keys("boots")
    wait(lambda: page.find_element("id", "place").text == "1 to 4 of 4")
    assert {t.text.split("\n")[0] for t in page.find_elements("class name", "tile")} == {"boots"}
    press(page, Keys.ESCAPE)


def test_two_tabs_show_each_other_s_decisions(page, file):
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    try:
        page.get(page.execute_script("return arguments[0]", address(page, first)))
        ready(page)
        page.execute_script("watch = () => {}")
        press(page, "2")
        page.switch_to.window(first)
        page.execute_script("takeOver = () => {}")  # this tab has not looked at the server since
        press(page, "3")
        assert "Nothing was written: ana was faster" in said(page)
        assert current(page) == f"{AXES}/000.png"  # back at the picture in question
        assert tile(page, 0).find_element("class name", "state").text == "✓ axes → boots"
        press(page, "3")  # now that this person has seen it
    finally:
        for handle in page.window_handles:
            if handle != first:
                page.switch_to.window(handle)
                page.close()
        page.switch_to.window(first)
    assert [row.label for row in read_corrections(file)] == [BOOTS, JACKETS]


def address(browser, handle):
    here = browser.current_window_handle
    browser.switch_to.window(handle)
    url = browser.current_url
    browser.switch_to.window(here)
    return url


def test_undo_goes_back_step_by_step_and_not_over_somebody_else(page, file):
    press(page, "2", Keys.HOME, "3", Keys.HOME, "x", "u")
    assert [r.action for r in read_corrections(file)] == ["relabel"] * 2 + ["remove", "relabel"]
    press(page, "u")
    assert tile(page, 0).find_element("class name", "state").text == "✓ axes → boots"
    append(file, [Correction(f"{AXES}/000.png", "", "remove", "", "ben", "2026")])
    wait(lambda: "ben decided on 1 picture" in said(page))  # the page looks now and then
    press(page, "u")
    assert said(page) == "Not undone: somebody has decided since."
    assert read_corrections(file)[-1].by == "ben"


def test_copies_decided_on_together_are_undone_together(browser, tmp_path, file):
    run_with_pictures(tmp_path, each=1, model=True)
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "new" / name, 1)
    with reviewing(tmp_path / "run", [tmp_path / "new"], labels=file) as client:
        browser.get(f"http://127.0.0.1:{client.port}/")
        ready(browser)
        wait(lambda: browser.execute_script("return pictures.every((one) => one.data.predicted)"))
        ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
        press(browser, "1", "u")
        assert [p["done"] for p in client.pictures()] == [False, False]
        browser.get("about:blank")
    assert [r.label for r in read_corrections(file)] == [AXES, AXES, "undone", "undone"]


def test_an_unreadable_picture_says_so_in_its_tile(page, file):
    wait(lambda: "Unreadable: text, not a picture" in tile(page, 11).text)
    press(page, Keys.END, "1")
    assert "it can only be removed" in said(page)
    press(page, Keys.END, "x")
    assert read_corrections(file)[-1].path == f"{JACKETS}/003.png"


def test_names_stay_text(browser, tmp_path, file):
    run_with_pictures(tmp_path, each=1, classes=("<b>Ü雪", "axes"), model=True)
    write_picture(tmp_path / "new" / HOSTILE, 1)
    (tmp_path / "queue.csv").write_text(f'path,kind\n"{HOSTILE}",<b>bold</b>\n')
    queue = tmp_path / "queue.csv"
    with reviewing(tmp_path / "run", [tmp_path / "new"], labels=file, queue=queue) as client:
        browser.get(f"http://127.0.0.1:{client.port}/")
        ready(browser)
        press(browser, "1", "g")
        assert HOSTILE in browser.find_element("id", "facts").find_element("xpath", "..").text
        assert "<b>bold</b>" in browser.find_element("id", "facts").text
        assert not browser.find_elements("css selector", "b, img[src=x]")
        assert "pwned" not in browser.title
        browser.get("about:blank")
    assert read_corrections(file)[0].label in ("<b>Ü雪", "axes")


def test_a_class_without_a_key_is_found_by_typing(browser, tmp_path, file):
    classes = tuple(f"kind_{number:02d}" for number in range(40))
    run = run_with_pictures(tmp_path, each=1, classes=classes)
    with reviewing(run, labels=file) as client:
        browser.get(f"http://127.0.0.1:{client.port}/")
        ready(browser)
        assert len(browser.execute_script("return about.keys")) == 32
        press(browser, "/")
        press(browser, *"d 3")
        assert said(browser) == "10 classes. Enter takes kind 30."
        press(browser, "9", Keys.ENTER)
        press(browser, "b")  # the twelfth class: this key is shown beside it
        browser.get("about:blank")
    assert [row.label for row in read_corrections(file)] == ["kind_39", "kind_11"]


NAMED = ("button", "checkbox", "combobox", "searchbox", "textbox", "option", "listbox", "link")


def nameless(browser):
    """Controls that a screen reader could not name."""
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        focusable = any(
            p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ())
        )
        if not node.get("ignored") and (role in NAMED or focusable):
            controls.append((role, node.get("name", {}).get("value", "").strip()))
    assert ("button", "Close") in controls or len(controls) > 20
    return [role for role, name in controls if not name and role not in ("RootWebArea", "generic")]


def test_every_control_has_a_name_in_each_view(page):
    assert nameless(page) == []
    for key in ("g", "m", "?"):
        page.switch_to.active_element.send_keys(key)
        time.sleep(0.2)
        assert nameless(page) == [], key
    press(page, Keys.ESCAPE)


def test_a_screen_reader_hears_what_a_tile_shows_and_what_was_done(page):
    press(page, "2")
    words = tile(page, 0).get_attribute("aria-label")
    assert words.startswith(f"{AXES}/000.png, ✓ axes → boots")
    assert said(page) == f"{AXES}/000.png: boots. 1 of 12 done."
    assert page.find_element("id", "status").get_attribute("role") == "status"
    press(page, " ")
    assert tile(page, 1).get_attribute("aria-selected") == "true"


def test_the_focus_stays_where_a_person_works(page):
    button = page.find_element("css selector", "#classes button[value=boots]")
    button.send_keys(Keys.ENTER)  # by key: the focus stays on the button
    ready(page)
    assert page.switch_to.active_element == button
    button.click()  # by pointer: back to the pictures, where keys act
    ready(page)
    assert page.switch_to.active_element == tile(page, 2)
    for control in ("accept", "remove", "undo", "view", "next", "previous", "map", "several"):
        element = page.find_element("id", control)
        element.send_keys(Keys.ENTER)
        ready(page)
        assert_focused(page)
    press(page, Keys.TAB)


def test_keys_of_one_character_can_be_turned_off(page, file):
    page.execute_script("document.getElementById('single').click()")
    press(page, "2", "x")
    assert not file.exists()
    press(page, Keys.DELETE)
    assert len(read_corrections(file)) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, dark):
    chromium.resize(page, 360, dark=dark)
    page.refresh()
    ready(page)
    assert chromium.overflow(page) == 0
    page.find_element("css selector", "#panel summary").click()
    assert chromium.overflow(page) == 0
    for name in CLASSES:  # each has a button to tap
        button = page.find_element("css selector", f"#classes button[value={name}]")
        page.execute_script("arguments[0].scrollIntoView()", button)
        assert button.is_displayed()
        assert button.rect["height"] >= 32
    button.click()
    ready(page)
    page.find_element("id", "view").click()
    assert chromium.overflow(page) == 0
    page.find_element("id", "help").click()
    assert chromium.overflow(page) == 0
    assert page.find_element("id", "count").text == "1 of 12 done"


def test_the_focus_is_seen_in_forced_colours(page):
    features = [{"name": "forced-colors", "value": "active"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    press(page, Keys.ARROW_RIGHT)
    style = (
        "const s = getComputedStyle(document.activeElement);return [s.outlineStyle, s.outlineWidth]"
    )
    assert page.execute_script(style) == ["solid", "3px"]
    press(page, " ")
    other = "return getComputedStyle(document.querySelector('[aria-selected=true]')).outlineStyle"
    assert page.execute_script(other) != "none"


def served(run, port):
    """A server in a process of its own, at a port."""
    command = [sys.executable, "-m", "jaxgear", "review", str(run), "--by", "ana"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("http"):
            return process
    raise AssertionError("no server")


def end(process):
    """Kills a server (SIGKILL)."""
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("lost", ["throw new TypeError('gone')", "answer = new Response('{\"do')"])
def test_a_decision_whose_answer_was_lost_is_not_written_twice(page, file, lost):
    """The row was on disk, but the server died before it had said so, or while it did."""
    page.execute_script(
        "const ask = window.fetch; let first = true;"
        "window.fetch = async (...request) => {"
        "  let answer = await ask(...request);"
        f" if (request[0] === 'decide' && first) {{ first = false; {lost}; }}"
        "  return answer; };"
    )
    press(page, "2")
    assert said(page) == f"{AXES}/000.png: boots. 1 of 12 done."
    assert current(page) == f"{AXES}/001.png"
    assert [row.label for row in read_corrections(file)] == [BOOTS]
    press(page, "u")
    assert tile(page, 0).find_element("class name", "state").text == "axes"
    assert not page.find_element("id", "trouble").is_displayed()


def test_200_pictures_are_labelled_while_the_server_is_killed_twice(browser, tmp_path):
    data = write_drawn(tmp_path / "data", 200)
    run = run_of(tmp_path / "run", data)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = served(run, port)
    expected = {}
    try:
        chromium.resize(browser, 1280)
        browser.get(f"http://127.0.0.1:{port}/")
        ready(browser)
        keys, classes = browser.execute_script("return [about.keys, about.classes]")
        place = "return [pictures[current].data.name, current + 1 === pictures.length]"
        for number in range(200):
            name, last_of_page = browser.execute_script(place)
            assert name not in expected
            key = (7 * number) % len(classes)
            expected[name] = classes[key]
            ActionChains(browser, duration=0).send_keys(keys[key]).perform()
            if number in (80, 150):  # in the middle of a page, with requests under way
                end(process)
            if number in (84, 153):  # a few were decided on without a server
                assert browser.execute_script("return unsaved") > 0
                process = served(run, port)
                ready(browser)
            if last_of_page:
                ready(browser)
        ready(browser)
        assert browser.find_element("id", "count").text == "200 of 200 done"
    finally:
        end(process)
        browser.get("about:blank")
    rows = read_corrections(run / "corrections.csv")
    assert {row.path: row.label for row in rows} == expected
    assert len(rows) == 200
    for row in rows:
        assert row.sha256 == hashlib.sha256((data / row.path).read_bytes()).hexdigest()
