"""The study of the influx: its table, its curves, and a whole one that is stopped and goes on."""

import argparse
import csv
import math
import shutil
from pathlib import Path

import pytest

from jaxgear.data.sources import drawn_set
from scripts import influx_study
from scripts.acquisition import photograph_of
from scripts.studies.influx import (
    DOMAINS,
    NAN,
    Point,
    Training,
    curve,
    draw,
    from_csv,
    lines,
    to_csv,
)


def points():
    for seed in (0, 1):
        for order, labels, unlabelled, gain in [
            ("none", 0, 0, 0.0),
            ("random", 24, 0, 0.1),
            ("next", 24, 0, 0.2),
            ("none", 0, 1, 0.05),
        ]:
            for domain in DOMAINS:
                accuracy = 0.5 + 0.1 * seed + gain
                pseudo = (0.5, 0.75) if unlabelled else (NAN, NAN)
                yield Point(seed, order, labels, unlabelled, domain, accuracy, 0.5, 40, *pseudo)


def test_the_table_comes_back_as_it_was_written():
    rows = list(points())
    again = from_csv(to_csv(rows))
    assert [row[:8] for row in again] == [row[:8] for row in rows]
    assert math.isnan(again[0].used)
    assert again[-1][8:] == (0.5, 0.75)
    assert {type(value) for value in again[0]} == {int, str, float}
    assert Training(0, "next", 24, 1).name == "next-24-unlabelled"


def test_curves_start_without_labels_and_gains_are_over_no_labels():
    rows = list(points())
    assert curve(rows, "wild", "next", 0, "accuracy") == {
        0: pytest.approx([0.5, 0.6]),
        24: pytest.approx([0.7, 0.8]),
    }
    assert curve(rows, "wild", "next", 1, "accuracy") == {0: pytest.approx([0.55, 0.65])}
    alone = Point(0, "next", 48, 0, "wild", 0.9, 0.9, 40, NAN, NAN)  # of one seed
    assert list(curve([*rows, alone], "wild", "next", 0, "accuracy")) == [0, 24]
    table = [line for line in lines(rows) if line.startswith("wild")]
    assert [[*line.split()[1:4], line.split()[-1]] for line in table] == [
        ["none", "0", "without", "+0.000"],
        ["random", "24", "without", "+0.100"],
        ["next", "24", "without", "+0.200"],
        ["none", "0", "with", "+0.050"],
    ]
    assert "0.750 ± 0.071" in table[2]
    assert draw(rows).startswith(b"\x89PNG")


def test_a_pool_without_a_picture_left_is_not_learned_from_unlabelled(monkeypatch, tmp_path):
    """The pool of some seeds has just as many crops as two rounds label."""
    halves = argparse.Namespace(crops=[f"boots/{n}.jpg" for n in range(6)])
    monkeypatch.setattr(influx_study, "Halves", lambda *_: halves)
    study, trained = object.__new__(influx_study.Study), []
    study.wild, study.out, study.proposals = tmp_path, tmp_path, 0
    study.run = lambda halves, training, given: trained.append(training.name)
    study.up_to(2, 0, 3, ["random"])
    assert trained == [
        *("none-0", "random-3", "random-6"),
        *("none-0-unlabelled", "random-3-unlabelled"),
    ]


@pytest.mark.slow
@pytest.mark.one_cache
def test_a_study_hides_labels_gives_them_in_rounds_and_goes_on(tmp_path, monkeypatch, capsys):
    """On drawn pictures: gear, crops of other drawn pictures, and drawings as photographs."""
    gear = drawn_set("drawn:120")
    more = drawn_set("drawn:168")
    wild, photographs = tmp_path / "wild", tmp_path / "photographs"
    known = {path.relative_to(gear) for path in gear.rglob("*.*")}
    photographs.mkdir()
    new = sorted(p for p in more.rglob("*.jpg") if p.relative_to(more) not in known)
    for number, path in enumerate(new):
        place = wild / path.parent.name / f"img_{number // 2}_{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for number, path in enumerate(new[:12]):
        shutil.copy(path, photographs / f"img_{100 + number}.jpg")
    for number in range(len(new) // 2):  # they have crops: they are no backgrounds
        shutil.copy(new[2 * number], photographs / f"img_{number}.jpg")
    arguments = argparse.Namespace(
        **{"gear": gear, "wild": wild, "photographs": photographs, "out": tmp_path / "out"},
        **{"seeds": 1, "rounds": 1, "count": 5, "order": ["next"], "plot": None, "proposals": 2},
    )
    flags = ["scratch", "--image-size", "16", "--epochs", "1", "--width", "0.125"]
    influx_study.main(arguments, flags)
    table = (tmp_path / "out/study.csv").read_text()
    found = from_csv(table)
    assert {point.training.name for point in found} == {
        *("none-0", "next-5", "none-0-unlabelled", "next-5-unlabelled", "none-0-proposed"),
    }
    assert len(found) == 5 * len(DOMAINS)
    assert all(0 <= point.right <= 1 for point in found if point.unlabelled == 1)
    proposed = {
        Path(row["path"]).stem
        for row in csv.DictReader((tmp_path / "out/0/proposed.csv").read_text().splitlines())
    }
    pool = {photograph_of(path.name) for path in (tmp_path / "out/0/pool").rglob("*.jpg")}
    assert proposed == pool  # none of the test half's photographs
    assert not (tmp_path / "out/backgrounds/img_0.jpg").exists()
    halves = [
        {path.stem.rpartition("_")[0] for path in (tmp_path / "out/0" / name).rglob("*.jpg")}
        for name in ("pool", "test")
    ]
    assert not halves[0] & halves[1]
    capsys.readouterr()
    kept = table.splitlines(keepends=True)[: 1 + 3 * 4]  # stopped after four runs
    (tmp_path / "out/study.csv").write_text("".join(kept))
    influx_study.main(arguments, flags)
    text = capsys.readouterr().out
    assert text.count("best epoch") == 1
    assert Path(tmp_path / "out/study.csv").read_text() == table
    assert text.count("\nwild ") == 5
