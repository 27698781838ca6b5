"""The review's server: what it writes, and what it refuses."""

import io
import json
import multiprocessing
import random
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from reviews import OURS, Client, reviewing, run_with_pictures, serving, write_picture
from small_bundle import CLASSES, make_bundle

from jaxgear.data.images import load_letterboxed
from jaxgear.data.labels import Correction, append, read_corrections
from jaxgear.serving.review import files
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.opening import open_session

AXES, BOOTS, JACKETS = CLASSES


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of 12 pictures, without a model."""
    return run_with_pictures(tmp_path_factory.mktemp("own"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.fixture
def client(own, file):
    with reviewing(own, labels=file) as client:
        yield client


@pytest.fixture(scope="module")
def idle(own, tmp_path_factory):
    """A client of a server at which nothing is ever decided."""
    with reviewing(own, labels=tmp_path_factory.mktemp("idle") / "corrections.csv") as client:
        yield client
        assert client.get("/list?from=0")["done"] == 0
        assert not Path(client.about["file"]).exists()


def entry(picture, action="label", label="", **more):
    return {
        "index": picture["index"],
        "version": picture["version"],
        "action": action,
        "label": label,
        **more,
    }


def test_a_page_lists_the_run_s_pictures_by_class(idle):
    pictures = idle.pictures()
    assert [p["label"] for p in pictures] == [AXES] * 4 + [BOOTS] * 4 + [JACKETS] * 4
    first = pictures[0]
    assert first["name"] == f"{AXES}/000.png"
    assert (first["version"], first["done"], first["removed"]) == (0, False, False)
    assert first["accept"] == {"action": "label", "label": AXES}
    assert idle.about["keys"] == ["1", "2", "3"]
    found = idle.get(f"/list?group={CLASSES.index(BOOTS)}&from=5")
    assert [p["index"] for p in found["pictures"]] == [5, 6, 7]
    assert (found["first"], found["matching"]) == (1, 4)
    assert [p["index"] for p in idle.pictures("before=3")] == [0, 1, 2]


def test_decisions_are_rows_that_name_the_file_and_its_hash(client, own, file):
    a, b, c = client.pictures()[:3]
    assert client.decide(entry(a, label=BOOTS))[0] == 200
    assert client.decide(entry(b, "remove", "blurred"))[0] == 200
    status, answer = client.decide(entry(c, label=AXES))
    assert (status, answer["done"]) == (200, 3)
    rows = read_corrections(file)
    assert [(r.path, r.action, r.label) for r in rows] == [
        (f"{AXES}/000.png", "relabel", BOOTS),
        (f"{AXES}/001.png", "remove", "blurred"),
        (f"{AXES}/002.png", "relabel", AXES),
    ]
    recorded = json.loads((own / "splits.json").read_text())["pictures"]
    assert [r.sha256 for r in rows] == [p["sha256"] for p in recorded[:3]]
    assert not any(row.by_program for row in rows)
    a, b, c = client.pictures()[:3]
    assert (a["current"], a["label"], a["done"], a["by"]) == (BOOTS, AXES, True, "ana")
    assert (b["removed"], b["note"], b["done"]) == (True, "blurred", True)
    assert (c["current"], c["done"]) == (AXES, True)


def test_what_was_decided_before_is_shown_as_done(own, file):
    with reviewing(own, labels=file) as client:
        client.decide(*(entry(p, label=JACKETS) for p in client.pictures()[:2]))
    with reviewing(own, labels=file, by="ben") as client:
        found = client.get("/list?show=done")
        assert [p["index"] for p in found["pictures"]] == [0, 1]
        assert (found["done"], found["pictures"][0]["by"]) == (2, "ana")
        assert [p["index"] for p in client.pictures("show=open")] == list(range(2, 12))


def test_a_program_s_row_is_shown_but_counts_as_to_do(own, file):
    append(file, [Correction(f"{AXES}/000.png", "", "remove", "twin", "jaxgear clean", "2026")])
    with reviewing(own, labels=file) as client:
        first = client.pictures()[0]
        assert (first["removed"], first["done"], first["by"]) == (True, False, "jaxgear clean")
        assert first["accept"] == {"action": "remove", "label": "twin"}
        assert client.decide(entry(first, **first["accept"]))[1]["done"] == 1
        assert read_corrections(file)[-1].by == "ana"


def test_several_pictures_are_one_addition(client, file, monkeypatch):
    added = []
    monkeypatch.setattr(
        "jaxgear.serving.review.decisions.append",
        lambda path, rows, at: added.append(len(rows)) or append(path, rows, at),
    )
    assert client.decide(*(entry(p, label=BOOTS) for p in client.pictures()[:7]))[0] == 200
    assert added == [7]
    assert len(read_corrections(file)) == 7


def test_the_answer_comes_after_the_row_is_on_disk(client, file, monkeypatch):
    held = threading.Event()

    def slow(path, rows, at):
        held.wait(20)
        return append(path, rows, at)

    monkeypatch.setattr("jaxgear.serving.review.decisions.append", slow)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(client.decide(entry(client.pictures()[0], label=BOOTS)))
    )
    asking.start()
    asking.join(0.3)
    assert answers == []
    held.set()
    asking.join(20)
    assert answers[0][0] == 200
    assert len(read_corrections(file)) == 1


def test_undo_restores_what_was_before_step_by_step(client, file):
    def present():
        found = client.pictures()[0]
        return found["current"], found["removed"], found["done"]

    versions = []
    for action, label in (("label", BOOTS), ("remove", "blurred"), ("label", JACKETS)):
        _, answer = client.decide(entry(client.pictures()[0], action, label))
        versions.append(answer["pictures"][0]["version"])
    states = []
    for row in reversed(versions):
        assert client.decide(entry(client.pictures()[0], "undo", row=row))[0] == 200
        states.append(present())
    # Undone to the last: the label of the set, and undecided again.
    assert states == [(AXES, True, True), (BOOTS, False, True), (AXES, False, False)]
    rows = read_corrections(file)
    assert [(r.action, r.label) for r in rows[3:]] == [
        ("remove", "blurred"),
        ("relabel", BOOTS),
        ("relabel", AXES),
    ]


def test_two_tabs_do_not_overwrite_each_other(client):
    other = Client(client.port)
    seen, theirs = client.pictures()[:3], other.pictures()[:3]
    assert client.decide(entry(seen[1], label=BOOTS))[0] == 200
    status, answer = other.decide(*(entry(p, label=JACKETS) for p in theirs))
    assert status == 409
    (newer,) = answer["pictures"]  # only that one is shown, and none of the three was written
    assert (newer["index"], newer["current"], answer["done"]) == (1, BOOTS, 1)
    assert other.decide(entry(newer, label=JACKETS))[0] == 200  # now that it was seen


def test_what_another_process_adds_is_seen_and_not_overwritten(client, file, own):
    first = client.pictures()[0]
    sha256 = json.loads((own / "splits.json").read_text())["pictures"][0]["sha256"]
    append(file, [Correction(f"{AXES}/000.png", sha256, "remove", "", "ben", "2026")])
    status, answer = client.decide(entry(first, label=BOOTS))
    assert status == 409
    assert (answer["pictures"][0]["removed"], answer["pictures"][0]["by"]) == (True, "ben")
    assert client.get("/states?of=0,3")["pictures"][0]["version"] == 1
    assert [row.by for row in read_corrections(file)] == ["ben"]


def test_a_row_that_arrives_between_the_check_and_the_addition_is_seen(client, file, monkeypatch):
    """The file grows just before our own rows would be added to it."""
    theirs = Correction(f"{AXES}/000.png", "", "remove", "", "ben", "2026")
    late = [theirs]

    def raced(path, rows, at):
        if late:
            append(path, [late.pop()])
        return append(path, rows, at)

    monkeypatch.setattr("jaxgear.serving.review.decisions.append", raced)
    first, second = client.pictures()[:2]
    assert client.decide(entry(first, label=BOOTS))[0] == 409
    assert read_corrections(file) == (theirs,)
    late.append(Correction(f"{BOOTS}/000.png", "", "remove", "", "ben", "2026"))
    assert client.decide(entry(second, label=BOOTS))[0] == 200  # about another picture
    assert len(read_corrections(file)) == 3


def test_a_file_edited_by_hand_is_read_again(client, file):
    client.decide(*(entry(p, label=BOOTS) for p in client.pictures()[:2]))
    text = file.read_text().splitlines()
    file.write_text("\n".join([text[0], text[2].replace(BOOTS, JACKETS)]) + "\n")
    first, second = client.pictures()[:2]
    assert (first["done"], first["current"]) == (False, AXES)
    assert (second["done"], second["current"], second["version"]) == (True, JACKETS, 1)


def test_a_damaged_corrections_file_is_said_and_the_page_goes_on(client, file):
    client.decide(entry(client.pictures()[0], label=BOOTS))
    whole = file.read_text()
    file.write_text("my notes\n")
    status, body, _ = client.ask("/list?from=0")
    assert status == 422
    assert "not a corrections file" in json.loads(body)["error"]
    file.write_text(whole)
    assert client.pictures()[0]["done"]


def test_a_picture_that_changed_since_it_was_seen_is_not_decided_on(own, file, tmp_path):
    run = run_with_pictures(tmp_path / "other", each=1)
    picture = tmp_path / "other/data" / AXES / "000.png"
    with reviewing(run, labels=file) as client:
        client.decide(entry(client.pictures()[0], label=BOOTS))
        sha256 = write_picture(picture, 77)
        status, answer = client.decide(entry(client.pictures()[0], label=BOOTS))
        assert (status, answer["pictures"][0]["version"]) == (409, 0)  # nobody knows this one
        assert client.decide(entry(answer["pictures"][0], label=JACKETS))[0] == 200
        assert read_corrections(file)[-1].sha256 == sha256


def test_copies_of_a_picture_share_a_decision(tmp_path, file):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "new" / name, 1)
    run = run_with_pictures(tmp_path, each=1, model=True)
    with reviewing(run, [tmp_path / "new"], labels=file) as client:
        for index in (0, 1):
            assert client.ask(f"/thumbnail/{index}")[0] == 200  # now their bytes are known
        _, answer = client.decide(entry(client.pictures()[0], label=BOOTS))
        assert [p["index"] for p in answer["pictures"]] == [0, 1]
        assert [p["current"] for p in client.pictures()] == [BOOTS, BOOTS]


def test_new_pictures_are_added_removed_and_undone(tmp_path, file):
    hashes = [write_picture(tmp_path / "new" / f"{i}.png", i) for i in range(3)]
    run = run_with_pictures(tmp_path, each=1, model=True)
    with reviewing(run, [tmp_path / "new"], labels=file) as client:
        a, b, _ = client.pictures()
        assert (a["label"], a["name"]) == (None, "0.png")
        _, answer = client.decide(entry(a, label=BOOTS), entry(b, "remove"))
        row = answer["pictures"][0]["version"]
        client.decide(entry(answer["pictures"][0], "undo", row=row))
        rows = read_corrections(file)
        assert [(r.action, r.label) for r in rows] == [
            ("add", BOOTS),
            ("remove", ""),
            ("remove", "undone"),
        ]
        assert rows[0].path == str(tmp_path / "new/0.png")
        assert [r.sha256 for r in rows] == [hashes[0], hashes[1], hashes[0]]
    with reviewing(run, [tmp_path / "new"], labels=file) as client:
        assert [(p["done"], p["removed"]) for p in client.pictures()] == [
            (False, False),
            (True, True),
            (False, False),
        ]


def test_predictions_come_for_the_page_in_view(tmp_path, file):
    for i in range(5):
        write_picture(tmp_path / "new" / f"{i}.png", i)
    run = run_with_pictures(tmp_path, each=1, model=True)
    bundle = make_bundle()
    with reviewing(run, [tmp_path / "new"], labels=file) as client:
        found = client.get("/picture/3")
        data = (tmp_path / "new/3.png").read_bytes()
        image = load_letterboxed(data, bundle.size, "3.png")
        logits = np.asarray(bundle.program.logits(bundle.weights, image[None]))
        (probs,) = bundle.probs(logits)
        np.testing.assert_allclose(
            [c["probability"] for c in found["classes"]], np.sort(probs)[::-1], atol=1e-5
        )
        best = CLASSES[int(probs.argmax())]
        assert (found["predicted"], found["accept"]["label"]) == (best, best)
        for _ in range(100):
            page = client.get("/list?from=0")
            if all(p["predicted"] for p in page["pictures"]):
                break
            threading.Event().wait(0.1)
        else:
            raise AssertionError("no predictions")
        assert sum(group["count"] for group in page["groups"]) == 5
        assert not any(group["name"] == "?" for group in page["groups"])
        group = page["groups"][0]
        listed = client.pictures(f"group={group['group']}")
        assert {p["predicted"] for p in listed} == {group["name"]}
        status, content, headers = client.ask(f"/map/3?class={best}")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert PIL.Image.open(io.BytesIO(content)).size == (512, 512)
        assert client.ask("/map/3?class=yaks")[0] == 422


def test_nothing_is_decoded_or_hashed_before_it_is_shown(own, file, monkeypatch):
    read = []
    monkeypatch.setattr(files, "read_bytes", lambda path, name: read.append(name) or b"x")
    session, _ = open_session(own, labels=file, by="ana")
    session.matching("open")
    assert read == []


def test_an_unreadable_picture_says_why_and_can_only_be_removed(tmp_path, file):
    run = run_with_pictures(tmp_path, each=2)
    (tmp_path / "data" / AXES / "000.png").write_text("hello")
    (tmp_path / "data" / AXES / "001.png").unlink()
    with reviewing(run, labels=file) as client:
        status, body, _ = client.ask("/thumbnail/0")
        assert (status, json.loads(body)["error"]) == (422, "text, not a picture")
        assert client.ask("/thumbnail/1")[0] == 422
        assert client.ask("/thumbnail/2")[0] == 200
        text, gone = client.pictures()[:2]
        assert (text["error"], gone["error"]) == ("text, not a picture", "no such file")
        for picture in (text, gone):
            status, answer = client.decide(entry(picture, label=AXES))
            assert status == 422
            assert "it can only be removed" in answer["error"]
            assert client.decide(entry(picture, "remove"))[0] == 200
        recorded = json.loads((run / "splits.json").read_text())["pictures"]
        rows = read_corrections(file)
        assert rows[1].sha256 == recorded[1]["sha256"]  # as the run knew it
        assert rows[0].sha256 != recorded[0]["sha256"]  # of what is there


def test_pictures_are_small_jpegs(idle):
    for kind, size in (("thumbnail", 192), ("large", 1024)):
        status, content, headers = idle.ask(f"/{kind}/0")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert max(PIL.Image.open(io.BytesIO(content)).size) <= size


@pytest.mark.parametrize(
    "path",
    [
        "/thumbnail/12",
        "/thumbnail/-1",
        "/thumbnail/1e3",
        "/thumbnail/" + "9" * 5000,
        "/thumbnail/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/thumbnail/../../../etc/passwd",
        "/large//etc/passwd",
        "/large/axes%2F000.png",
        "/picture/none",
        "/map/99?class=axes",
        "/page.html",
        "/data/axes/000.png",
        "/list?from=-1",
        "/list?group=yaks",
        "/states?of=0,99",
    ],
)
def test_only_listed_pictures_have_an_address(idle, path):
    status, body, headers = idle.ask(path)
    assert status == 404
    assert b"root:" not in body
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({**OURS, "origin": "http://evil.example"}, 403),
        ({**OURS, "host": "evil.example"}, 421),
        ({**OURS, "content-length": str(10**9)}, 413),
    ],
    ids=str,
)
def test_other_pages_cannot_decide(idle, headers, status):
    body = json.dumps({"set": idle.about["set"], "pictures": [entry(idle.pictures()[0])]})
    assert idle.ask("/decide", body, headers=headers)[0] == status
    assert not Path(idle.about["file"]).exists()


def test_pictures_are_not_for_other_pages(idle):
    _, _, headers = idle.ask("/thumbnail/0")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert idle.ask("/list", headers={"host": "evil.example"})[0] == 421
    assert idle.ask("/decide")[0] == 405


GOOD = {"index": 0, "version": 0, "action": "label", "label": BOOTS}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"set": "SET", "set": "SET", "pictures": []}', 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b" " * 300_000, 413),
        ({"pictures": {}}, 422),
        ({"pictures": []}, 422),
        ({"pictures": [GOOD], "set": "another"}, 410),
        ({"pictures": ["axes/000.png"]}, 422),
        ({"pictures": [GOOD, GOOD]}, 422),
        ({"pictures": [GOOD | {"index": i} for i in range(600)]}, 422),
        ({"pictures": [GOOD | {"index": 12}]}, 404),
        ({"pictures": [GOOD | {"index": -1}]}, 422),
        ({"pictures": [GOOD | {"index": True}]}, 422),
        ({"pictures": [GOOD | {"index": "0"}]}, 422),
        ({"pictures": [GOOD | {"index": "../../etc/passwd"}]}, 422),
        ({"pictures": [GOOD | {"index": 1.5}]}, 422),
        ({"pictures": [GOOD | {"version": None}]}, 422),
        ({"pictures": [{"version": 0, "action": "remove"}]}, 422),
        ({"pictures": [GOOD | {"label": "yaks"}]}, 422),
        ({"pictures": [GOOD | {"label": "../../x"}]}, 422),
        ({"pictures": [GOOD | {"label": 7}]}, 422),
        ({"pictures": [GOOD | {"label": "x" * 300}]}, 422),
        ({"pictures": [GOOD | {"action": "remove", "label": "two\nlines"}]}, 422),
        ({"pictures": [GOOD | {"action": "remove", "label": "\ud800"}]}, 422),
        ({"pictures": [GOOD | {"action": "add"}]}, 422),
        ({"pictures": [GOOD | {"action": "undo"}]}, 422),
        ({"pictures": [GOOD | {"action": ["label"]}]}, 422),
    ],
)
def test_requests_that_our_page_would_not_send_write_nothing(idle, body, status):
    if isinstance(body, dict):
        body = json.dumps({"set": idle.about["set"], **body}).encode()
    elif b"SET" in body:
        body = body.replace(b"SET", idle.about["set"].encode())
    found, content, _ = idle.ask("/decide", body)
    assert found == status, content
    assert json.loads(content)["error"]
    assert not Path(idle.about["file"]).exists()


def test_a_file_that_cannot_be_written_is_said(client, file):
    file.mkdir()
    status, answer = client.decide(entry(GOOD | {"index": 0}, label=BOOTS))
    assert status in (422, 500)
    assert str(file) in answer["error"]
    file.rmdir()
    assert client.decide(entry(GOOD | {"index": 0}, label=BOOTS))[0] == 200


def test_many_at_once_each_get_their_row(client, file):
    pictures = client.pictures()
    threads = [
        threading.Thread(target=client.decide, args=(entry(picture, label=BOOTS),))
        for picture in pictures
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_corrections(file)
    assert sorted(row.path for row in rows) == sorted(p["name"] for p in pictures)


def decide_at_random(run, file, by, made):
    """Two threads decide 25 times each on what they see; puts what was accepted on a queue."""
    session, _ = open_session(run, labels=file, by=by)
    accepted = []

    def work(seed):
        choose = random.Random(f"{by}{seed}")
        for _ in range(25):
            wanted = [
                Decision(i, session.describe(i)["version"], "label", choose.choice(CLASSES))
                for i in choose.sample(range(12), choose.choice([1, 3]))
            ]
            if session.decide(wanted)[0]:
                accepted.extend(
                    (session.pictures.name(d.index), d.version, d.label) for d in wanted
                )

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    made.put((by, accepted))


def test_processes_that_decide_at_once_only_replace_what_they_saw(own, file):
    context = multiprocessing.get_context("spawn")
    made = context.Queue()
    processes = [
        context.Process(target=decide_at_random, args=(own, file, by, made))
        for by in ("ana", "ben")
    ]
    for process in processes:
        process.start()
    accepted = dict(made.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    rows = read_corrections(file)
    assert len(rows) == sum(map(len, accepted.values()))
    before = dict.fromkeys((row.path for row in rows), 0)
    for number, row in enumerate(rows, 1):
        assert (row.path, before[row.path], row.label) in accepted[row.by]
        before[row.path] = number


def test_nothing_is_written_below_the_pictures(own, client):
    data = Path(json.loads((own / "config.json").read_text())["data"])
    before = sorted((str(p), p.stat().st_mtime_ns) for p in data.rglob("*"))
    for index in range(3):
        client.ask(f"/thumbnail/{index}")
    client.decide(entry(client.pictures()[0], label=BOOTS))
    assert sorted((str(p), p.stat().st_mtime_ns) for p in data.rglob("*")) == before


def test_a_page_of_another_server_is_told_to_load_again(own, file, tmp_path):
    other = run_with_pictures(tmp_path / "other", each=1)
    with reviewing(own, labels=file) as client:
        stale = client.about
    session, _ = open_session(other, labels=file, by="ana")
    with serving(session) as port:
        client = Client(port)
        client.about = stale
        status, answer = client.decide(entry(client.pictures()[0], label=BOOTS))
    assert status == 410
    assert "load the page again" in answer["error"]
    assert not file.exists()
