"""The local page: what it answers, what it refuses, and what a person sees of it."""

import base64
import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser as chromium
import numpy as np
import PIL.Image
import pytest
import uvicorn
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.errors import GearError
from jaxgear.serving import app
from jaxgear.serving.answer import Classifier

ROOT = Path(__file__).parents[2]
CLASSES = ("axes", "ice_screws", "<b>Ü雪", "tents", "boots")
SIZE = 16
HOSTILE = "<img src=x onerror=document.title='pwned'>.png"
OURS = {"x-jaxgear": "1"}


def png(seed, size=(30, 20)):
    """A file of random pixels, with them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels


def bomb():
    """A PNG of a few hundred bytes whose header promises 400 million pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture(scope="module")
def bundle():
    """A network that tells random pictures apart, and knows the one of seed 1."""
    known = {hashlib.sha256(png(1)[0]).hexdigest(): "train"}
    return make_bundle(size=SIZE, classes=CLASSES, known=known, temperature=0.1)


@pytest.fixture(scope="module")
def port(bundle):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        application = app.build(Classifier(bundle), "a run <b>", "127.0.0.1")
        server = uvicorn.Server(
            uvicorn.Config(application, http="h11", ws="none", lifespan="off", log_level="warning")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def ask(port, method="POST", path="/predict", body=None, headers=OURS, **more):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request(method, path, body, {**headers, **more})
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


def expected(bundle, pixels):
    image = letterbox(pixels, SIZE)[None]
    logits = np.asarray(bundle.program.logits(bundle.weights, image))
    return bundle.probs(logits)[0]


def test_answer_is_that_of_the_bundle_in_order(port, bundle):
    data, pixels = png(0)
    status, body, headers = ask(port, body=data)
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    probs = expected(bundle, pixels)
    assert np.ptp(probs) > 0.1
    assert [one["name"] for one in found["classes"]] == [CLASSES[i] for i in np.argsort(-probs)]
    np.testing.assert_allclose(
        [one["probability"] for one in found["classes"]], np.sort(probs)[::-1], atol=1e-5
    )
    assert found["side"] is None
    for kind in ("picture", "overlay"):
        content = base64.b64decode(found[kind].removeprefix("data:image/jpeg;base64,"))
        with PIL.Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (320, 320)


def test_a_picture_of_the_data_set_is_flagged(port):
    assert json.loads(ask(port, body=png(1)[0])[1])["side"] == "train"


def test_what_is_no_gear_is_none(bundle):
    (data, _), (_, pixels) = png(0), png(0)
    logits = np.asarray(bundle.program.logits(bundle.weights, letterbox(pixels, SIZE)[None]))
    (score,) = bundle.score(logits)
    for least, refused in ((None, False), (score - 0.01, False), (score + 0.01, True)):
        found = Classifier(dataclasses.replace(bundle, accept_from=least)).answer(data)
        assert found["score"] == pytest.approx(score, abs=1e-5)
        assert found["accept_from"] == least
        assert found["refused"] == refused
        assert found["class"] == ("none" if refused else found["classes"][0]["name"])


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (MemoryError(), 503, "too little memory"),
        (GearError("picture: cannot be opened (Too many open files)"), 500, "Too many open files"),
    ],
)
def test_what_the_machine_lacks_is_said_and_the_server_goes_on(
    port, monkeypatch, error, status, word
):
    def short(classifier, data):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "answer", short)
        found = ask(port, body=png(0)[0])
    assert found[0] == status
    assert word in json.loads(found[1])["error"]
    assert ask(port, body=png(0)[0])[0] == 200


def test_many_at_once_get_their_own_answers(port, bundle):
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: ask(port, body=png(seed)[0]), range(2, 26)))
    for seed, (status, body, _) in enumerate(answers, 2):
        assert status == 200
        first = json.loads(body)["classes"][0]["name"]
        assert first == CLASSES[expected(bundle, png(seed)[1]).argmax()]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"hello", "text"),
        (b"<html>", "web page"),
        (png(0)[0][:300], "truncated"),
        (bomb(), "50 million"),
    ],
    ids=["empty", "text", "html", "cut", "bomb"],
)
def test_what_is_no_picture_is_refused_with_its_reason(port, body, word):
    status, answer, _ = ask(port, body=body)
    assert status == 422
    assert word in json.loads(answer)["error"]


def test_too_large_is_refused_by_header_and_by_count(port):
    assert ask(port, headers={**OURS, "content-length": str(10**9)})[0] == 413
    assert ask(port, headers={**OURS, "content-length": "many"})[0] in (400, 413)

    def parts():
        for _ in range(21):
            yield b"x" * 2**20

    # Without a length, in chunks. The server may hang up while we still send.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert ask(port, body=parts())[0] == 413
    assert ask(port, body=png(0)[0])[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),  # what a form on another page can send
        ({**OURS, "origin": "http://evil.example"}, 403),
        ({**OURS, "host": "evil.example"}, 421),  # a name that was rebound to this machine
        ({**OURS, "host": "127.0.0.1.evil.example:80"}, 421),
        ({**OURS, "host": ""}, 421),
        ({**OURS, "host": "localhost:1"}, 200),
        ({**OURS, "host": "[::1]:8765"}, 200),
        ({**OURS, "host": "127.0.0.1"}, 200),
    ],
    ids=str,
)
def test_other_pages_and_names_are_refused(port, headers, status):
    assert ask(port, body=png(0)[0], headers=headers)[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/page.js", 200),
        ("GET", "/predict", 405),
        ("OPTIONS", "/predict", 405),  # so no preflight is ever allowed
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/page.html", 404),
    ],
)
def test_addresses(port, method, path, status):
    found, _, headers = ask(port, method, path)
    assert found == status
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in headers)


@pytest.fixture(scope="module")
def browser():
    yield from chromium.chromium()


@pytest.fixture
def page(browser, port):
    chromium.resize(browser, 1280)
    browser.get(f"http://127.0.0.1:{port}/")
    wait(lambda: "a run <b>" in browser.find_element("id", "title").text)
    return browser


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def results(page, count):
    found = wait(
        lambda: (
            items
            if len(items := page.find_elements("css selector", "#results > li")) >= count
            else None
        )
    )
    assert len(found) == count
    return found


DROP = """
const [names, contents] = arguments;
const transfer = new DataTransfer();
names.forEach((name, i) => {
  const bytes = Uint8Array.from(atob(contents[i]), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
});
const options = { bubbles: true, cancelable: true };
document.body.dispatchEvent(
  arguments[2] === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...options, clipboardData: transfer })
);
"""


def send(page, how, **files):
    contents = [base64.b64encode(data).decode() for data in files.values()]
    page.execute_script(DROP, list(files), contents, how)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_dropped_and_its_class_read(page, bundle, how):
    data, pixels = png(0)
    send(page, how, **{"Ü雪.png": data})
    (item,) = results(page, 1)
    probs = expected(bundle, pixels)
    first, second = np.argsort(-probs)[:2]
    verdict = f"{CLASSES[first].replace('_', ' ')} {probs[first]:.2f}"
    assert item.find_element("class name", "verdict").text == verdict
    guess = item.find_element("class name", "second").text
    assert guess == f"Second guess: {CLASSES[second].replace('_', ' ')} {probs[second]:.2f}"
    assert len(item.find_elements("css selector", ".first li")) == 3
    assert page.find_element("id", "status").text == f"Ü雪.png: {verdict}"
    for image in item.find_elements("tag name", "img"):
        assert image.get_attribute("naturalWidth") == "320"
        assert "Ü雪.png" in image.get_attribute("alt")
    assert not item.find_element("class name", "flag").is_displayed()
    assert chromium.errors(page) == []


def test_a_refused_picture_is_none_with_its_score(page):
    """What the server answers for it is tested above; here is what a person sees of that."""
    page.execute_script(
        "const ask = window.fetch; window.fetch = async (...request) => {"
        "  const answer = await (await ask(...request)).json();"
        "  Object.assign(answer, { refused: true, class: 'none', score: 1.234, accept_from: 2.5 });"
        "  return new Response(JSON.stringify(answer)); };"
    )
    send(page, "drop", **{"a.png": png(0)[0]})
    (item,) = results(page, 1)
    assert item.find_element("class name", "verdict").text == "none 1.23"
    second = item.find_element("class name", "second").text
    assert second.startswith("No gear: its score is below 2.50. Of the classes most like ")
    assert len(item.find_elements("css selector", ".first li")) == 3
    assert page.find_element("id", "status").text == "a.png: none 1.23"
    assert chromium.errors(page) == []


def test_names_and_classes_stay_text(page):
    send(page, "drop", **{HOSTILE: png(1)[0]})
    (item,) = results(page, 1)
    assert item.find_element("class name", "name").text == HOSTILE
    assert "trained on this picture" in item.find_element("class name", "flag").text
    item.find_element("tag name", "summary").click()
    assert "<b>Ü雪" in item.text
    assert page.title == "jaxgear: a run <b>"
    assert not item.find_elements("css selector", "b, img[src=x]")
    assert chromium.errors(page) == []


def test_one_bad_file_among_good_ones_says_why(page):
    send(page, "drop", **{"a.png": png(0)[0], "b.png": b"hello", "c.png": png(2)[0]})
    names = [item.find_element("class name", "name").text for item in results(page, 3)]
    assert names == ["c.png", "b.png", "a.png"]  # the newest first
    failed = page.find_elements("css selector", ".failed .verdict")
    assert [one.text for one in failed] == ["Not classified: text, not a picture"]


def test_more_than_sixteen_are_left_out_and_too_large_is_not_sent(page):
    send(page, "drop", **{f"{i}.png": b"no picture" for i in range(18)})
    results(page, 16)
    said = "0 of 16 pictures classified. 2 more left out: at most 16 at a time."
    wait(lambda: page.find_element("id", "status").text == said)
    page.find_element("id", "clear").click()
    assert page.switch_to.active_element.get_attribute("id") == "files"
    page.execute_script("take([new File([new Uint8Array(21 * 2 ** 20)], 'large.png')])")
    assert "larger than 20 MB" in results(page, 1)[0].text


def test_several_are_chosen_in_the_field_and_again(page, tmp_path):
    paths = [tmp_path / f"{seed}.png" for seed in (0, 2)]
    for seed, path in zip((0, 2), paths, strict=True):
        path.write_bytes(png(seed)[0])
    for count in (2, 4):
        page.find_element("id", "files").send_keys("\n".join(map(str, paths)))
        results(page, count)
        said = "2 of 2 pictures classified."
        wait(lambda: page.find_element("id", "status").text == said)  # noqa: B023


def test_by_keyboard_on_a_phone(page, tmp_path):
    (tmp_path / ("n" * 200 + ".png")).write_bytes(png(0)[0])
    chromium.resize(page, 360)
    page.switch_to.active_element.send_keys("\ue004")  # Tab: the first stop is the file field
    field = page.switch_to.active_element
    assert field.get_attribute("id") == "files"
    field.send_keys(str(tmp_path / ("n" * 200 + ".png")))
    (item,) = results(page, 1)
    item.find_element("tag name", "summary").send_keys("\n")
    assert item.find_element("class name", "others").is_displayed()
    assert chromium.overflow(page) == 0


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Promise.reject(new TypeError('Failed'))", "is the server still running?"),
        ("Promise.resolve(new Response('Busy', { status: 503 }))", "the server answered 503"),
    ],
)
def test_a_server_that_is_gone_or_busy_is_said(page, answer, word):
    page.execute_script(f"window.fetch = () => {answer}")
    send(page, "drop", **{"a.png": png(0)[0]})
    assert word in results(page, 1)[0].text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--port", "70000"], "70000"), (["--host", "203.0.113.1"], "203.0.113.1")],
)
def test_mistakes_are_one_line(arguments, word, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", "no/run", *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(port, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", "no/run", "--port", str(port)])
    assert stop.value.code == 2
    assert f"--port {port}: in use" in capsys.readouterr().err


def test_a_missing_extra_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", "no/run"])
    assert stop.value.code == 2
    assert "pip install 'jaxgear[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stops_when_it_is_told_to(bundle, tmp_path, number, code):
    bundle.save(tmp_path)
    command = [sys.executable, "-m", "jaxgear", "serve", str(tmp_path), "--port", "0"]
    command = ["sh", "-c", 'trap "" INT; exec "$0" "$@"', *command]  # as a job in the background
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)", line)[1])
        assert ask(port, body=png(0)[0])[0] == 200
        process.send_signal(number)
        complaint = process.communicate(timeout=20)[1]
    assert process.returncode == code
    assert complaint == ("interrupted\n" if number == signal.SIGINT else "")
