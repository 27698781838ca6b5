"""The report of a run: complete in itself, true to the run, and safe whatever names are in it."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import browser as chromium
import numpy as np
import PIL.Image
import pytest
from made_runs import untrained

from jaxgear import cli
from jaxgear.bundle.bundle import Bundle
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.report import render as report
from jaxgear.evaluation.report.findings import find
from jaxgear.evaluation.robustness import measure as robustness
from jaxgear.models.convnet import ConvNet, Dense
from jaxgear.models.finetune import FineTuned, Head
from jaxgear.models.pretrained.resnet import ResNet
from jaxgear.prediction.predictor import Predictor

HOSTILE = '"><img src=x onerror=alert(1)>'
CLASSES = ("<b>boots & Ü雪", "axes", "hardshell_jackets_of_a_long_name")
CSS = Path(__file__).parents[2] / "jaxgear/evaluation/report/report.css"

pytestmark = pytest.mark.one_cache


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten pictures a class, four of which each have a near-duplicate in another format and size."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(10):
            coarse = PIL.Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
            picture = coarse.resize((60, 60), PIL.Image.Resampling.BICUBIC)
            picture.save(root / name / f"{i}{HOSTILE}.png")
            if i < 4:
                picture.resize((90, 90)).save(
                    root / name / f"near-duplicate{i}{HOSTILE}.jpg", quality=90
                )
    return root


@pytest.fixture(scope="module")
def run(data, cache, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        folder = untrained(tmp_path_factory.mktemp("runs"), str(data), argv="<script>")
        assert call("report", folder) == 0
    return folder


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


class Page(HTMLParser):
    """Elements of a page in order, as (tag, attributes), and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_page_is_small_and_fetches_nothing(run, page):
    html = (run / "report.html").read_text(encoding="utf-8")
    assert len(html) < 5_000_000
    assert not re.search(r"https?:|//[a-z]", re.sub(r"data:[^\"]*", "", html))
    assert page.all("script") == []
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))


def test_names_of_classes_and_files_stay_text(page):
    for name in (*CLASSES, HOSTILE):
        assert name in page.text
    assert page.all("b") == []
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_links_resolve_and_ids_are_unique(page):
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert max(ids.values()) == 1
    links = [a["href"] for a in page.all("a")]
    assert len(links) == 10
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    marks = {a[k][1:] for _, a in page.elements for k in ("href", "xlink:href") if k in a}
    assert marks - {"ata:,"} <= ids.keys()


def test_figures_take_the_colours_of_the_page(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == 3
    for figure in figures:
        assert set(re.findall(r"(?:stroke|fill): ([^;\"]+)", figure)) <= {
            "none", "currentColor", "var(--line)", "var(--quiet)", "var(--first)", "var(--second)"
        }  # fmt: skip


def test_a_screen_reader_finds_its_way(page):
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in page.all("svg"))
    assert [tag for tag, _ in page.elements if tag in ("header", "nav", "main")] == [
        "header", "nav", "main"
    ]  # fmt: skip
    assert [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)][:2] == ["h1", "h2"]


def test_figures_are_those_of_the_test(run, page):
    test = json.loads((run / "test.json").read_text())
    found = find(FinishedRun.read(run)).summary
    assert found["confusion"] == test["confusion"]
    assert found["loss"] == pytest.approx(test["loss"], rel=1e-5)
    low, high = test["interval95"]
    assert f"{test['accuracy']:.3f}" in page.text
    assert f"{low:.3f} to {high:.3f}" in page.text


def test_confusions_of_a_thousand_classes_fit_on_a_page(run):
    """Those that are confused are named; all pictures are counted."""
    names = tuple(f"class {i}" for i in range(1000))
    table = 3 * np.eye(1000, dtype=int)
    table[2, 997] = 4
    finished, found = FinishedRun.read(run), find(FinishedRun.read(run))
    finished = dataclasses.replace(finished, classes=names)
    found = dataclasses.replace(found, summary=found.summary | {"confusion": table.tolist()})
    html = report._confusion(finished, found)
    assert len(html) < 100_000
    cells = re.findall(r"<td[^>]*>(\d+)</td>", html.partition("Most confused")[0])
    assert sum(map(int, cells)) == table.sum()
    for name in ("class 2", "class 997", "961 others"):
        assert f'<th scope="row">{name}</th>' in html


def test_largest_losses_are_of_pictures_that_were_not_trained_on(run, data):
    """The order and the probabilities, from each file by itself."""
    finished = FinishedRun.read(run)
    misses = find(finished).misses
    losses = [miss.loss for miss in misses]
    assert losses == sorted(losses, reverse=True)
    others = {*finished.split("val"), *finished.split("test")}
    assert {miss.picture for miss in misses} == others  # so few that all are shown
    bundle = Bundle.load(run)
    image = letterbox(load_rgb(data / misses[0].picture.path), bundle.size)
    (probs,) = Predictor(bundle, 1).probs(image[None])
    label = bundle.classes.index(misses[0].picture.name)
    assert misses[0].label_prob == pytest.approx(probs[label], abs=1e-6)
    assert (misses[0].predicted, misses[0].prob) == (
        bundle.classes[probs.argmax()],
        pytest.approx(probs.max(), abs=1e-6),
    )
    assert misses[0].image.shape == misses[0].overlay.shape
    assert (misses[0].image != misses[0].overlay).any()


def test_near_duplicates_are_counted_on_the_splits_that_the_run_gave_them(run):
    finished = FinishedRun.read(run)
    near_duplicates = find(finished).near_duplicates
    assert (near_duplicates.groups, near_duplicates.straddling) == (12, 0)
    assert sum(near_duplicates.pictures.values()) == 24
    assert near_duplicates.pictures["left_out"] == len(finished.split("left_out")) > 0
    for members in near_duplicates.examples:
        names = sorted(Path(picture.path).stem for picture, _ in members)
        assert names[1] == f"near-duplicate{names[0]}"


@pytest.fixture(scope="module")
def strict(run, cache, tmp_path_factory):
    """The run, with a model that takes some pictures for no gear; and those of its test split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("strict") / "run"))
        bundle = Bundle.load(run)
        root, test = Path(FinishedRun.read(run).config["data"]), FinishedRun.read(run).split("test")
        images = np.stack([letterbox(load_rgb(root / one.path), bundle.size) for one in test])
        scores = bundle.score(Predictor(bundle).logits(images))
        least = float(np.sort(scores)[3])
        dataclasses.replace(bundle, accept_from=least).save(folder / "model")
        assert call("report", folder) == 0
    ranked = sorted(zip(scores, test, strict=True), key=lambda pair: pair[0])
    return folder, least, [picture for _, picture in ranked[:3]]


def test_what_is_refused_is_counted_and_shown(strict):
    folder, least, expected = strict
    found = find(FinishedRun.read(folder))
    assert found.summary["accept_from"] == least
    assert found.summary["accepted"] == pytest.approx(1 - 3 / found.summary["n"])
    assert [one.picture for one in found.refusals.lowest] == expected
    assert found.refusals.n == 3
    for name, count in found.refusals.by_class.items():
        assert count == sum(picture.name == name for picture in expected)
    right = sum(one.predicted == one.picture.name for one in found.refusals.lowest)
    assert found.refusals.right == right
    for one in found.misses:
        assert one.refused == (one.score < least)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert f"3 of {found.summary['n']}" in page.text
    assert f"{least:.3f}" in page.text
    shown = found.refusals.lowest[0]
    assert f"none {shown.score:.2f} (most like {shown.predicted})" in page.text


def test_a_model_that_refuses_nothing_says_so(run, page):
    assert find(FinishedRun.read(run)).refusals is None
    assert "takes every picture for gear" in page.text


def test_pictures_that_moved_are_found_by_flag_and_hash(run, data, tmp_path, capsys):
    there = tmp_path / "there"
    shutil.copytree(data, there)
    next((there / "axes").iterdir()).rename(there / "axes" / "renamed.png")
    expected = find(FinishedRun.read(run)).summary
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data": "data/gone"}))
    assert call("report", copy) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "data/gone" in line
    assert "--data FOLDER" in line
    assert find(FinishedRun.read(copy), str(there)).summary == expected
    tested = FinishedRun.read(run).split("test")[0]
    shutil.rmtree(there)
    shutil.copytree(data, there)
    (there / tested.path).unlink()
    assert call("report", copy, "--data", there) == 4
    message = capsys.readouterr().err
    assert tested.path in message
    assert "--data names another folder, or they were edited" in message  # not: name it


def test_a_run_that_cannot_be_written_has_its_report_elsewhere(run, tmp_path, capsys):
    """A folder of that name is as unwritable for root as a read-only disk is for others."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for name in ("report.html", "robustness.json"):
        (copy / name).unlink(missing_ok=True)
        (copy / name).mkdir()
    assert call("report", copy) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --out {copy}/report.html: cannot be written (it is a folder)"
    (copy / "robustness.json").rmdir()
    assert call("report", copy, "--out", tmp_path / "here.html") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'here.html'}\n"
    assert (tmp_path / "here.html").read_text().startswith("<!DOCTYPE html>")
    assert call("report", copy, "--out", "-") == 0
    assert capsys.readouterr().out == (tmp_path / "here.html").read_text()


def test_what_was_measured_of_a_run_that_cannot_be_written_is_shown(run, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(robustness, "write_json", full)
    said = []
    found = robustness.measured(FinishedRun.read(run), corrupted=True, limit=1, say=said.append)
    assert found.n == 1
    assert said[-1].endswith("robustness.json: not kept, cannot be written (Read-only file system)")


def test_a_run_without_a_model_is_one_line(run, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "model")
    assert call("report", copy) == 5
    assert len(capsys.readouterr().err.splitlines()) == 1


def fine_tuned(classes):
    backbone = ResNet(depth=18, width=2)
    return FineTuned(backbone, Head(classes), "RGB", 1 / 255, (0.5,) * 3, (0.2,) * 3)


def dense(classes):
    return ConvNet([Dense(4)], classes)


@pytest.mark.parametrize(
    ("network", "by_grad_cam"),
    [pytest.param(fine_tuned, (True, False), marks=pytest.mark.slow), (dense, (False, True))],
)
def test_other_networks_have_a_report(network, by_grad_cam, data, tmp_path):
    folder = untrained(tmp_path, str(data), model=network(len(CLASSES)))
    assert call("report", folder) == 0
    html = (folder / "report.html").read_text()
    assert ("(Grad-CAM)" in html, "(covering places in turn)" in html) == by_grad_cam
    alts = [image["alt"] for image in Page(html).all("img")]
    assert any(alt.startswith("where the network saw") for alt in alts)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(scheme):
    block = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))

    def luminance(name):
        values = [int(colours[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    def contrast(a, b):
        dark, light = sorted((luminance(a), luminance(b)))
        return (light + 0.05) / (dark + 0.05)

    for ink in ("ink", "quiet", "link", "bad"):
        for paper in ("paper", "panel"):
            assert contrast(ink, paper) >= 4.5, (ink, paper)
    assert all(contrast(line, "paper") >= 3 for line in ("first", "second"))


@pytest.fixture(scope="module")
def browser():
    yield from chromium.chromium()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser_nothing_fails_and_nothing_sticks_out(run, browser, width, dark):
    chromium.resize(browser, width, dark=dark)
    browser.get((run / "report.html").resolve().as_uri())
    for details in browser.find_elements("css selector", "details"):
        details.click()
    assert chromium.overflow(browser) == 0
    assert chromium.errors(browser) == []
    assert chromium.requested(browser) <= {"file", "data"}
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")


def test_skip_link_is_first_and_leads_to_the_content(run, browser):
    browser.get((run / "report.html").resolve().as_uri())
    browser.switch_to.active_element.send_keys("\ue004")  # Tab
    assert browser.switch_to.active_element.text == "Skip to the content"
    browser.switch_to.active_element.send_keys("\n")
    assert browser.switch_to.active_element.get_attribute("id") == "main"
