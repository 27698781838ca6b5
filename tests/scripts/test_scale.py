"""The scale script draws what the drawn set holds, and measures what it says."""

import csv
import filecmp
import json
import sys
from pathlib import Path

import pytest

from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.synthetic.drawn import write_drawn
from jaxgear.data.tfds.read import read_tfds
from scripts import scale
from scripts.benchmarks import scaling, streaming, tables


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments) -> dict:
    monkeypatch.setattr(sys, "argv", ["scale", *map(str, arguments)])
    scale.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_draw_prepare_open(tmp_path: Path, monkeypatch, capsys):
    drawn, out = tmp_path / "drawn", tmp_path / "out"
    run(monkeypatch, capsys, "draw", drawn, "--count", 60, "--side", 48)
    same = write_drawn(tmp_path / "same", 60, size=48)
    names = {path.parent.name + "/" + path.stem: path for path in same.glob("*/*.*")}
    files = [path for path in drawn.glob("*/*") if path.is_file()]
    assert len(files) == len(names) == 60
    for path in files:
        other = names[f"{path.parent.name}/{int(path.stem):06d}"]
        assert filecmp.cmp(path, other, shallow=False)
    measured = run(
        monkeypatch, capsys, "prepare", drawn, "--size", 24, "--rounds", 1, "--keep", out
    )
    assert (measured["pictures"], measured["size"]) == (60, 24)
    assert measured["ratio"] == pytest.approx(
        measured["pictures_per_second"] / measured["pillow_pictures_per_second"], abs=0.01
    )
    opened = run(monkeypatch, capsys, "open", out, "--size", 24)
    assert opened["pictures"] == 60


@pytest.mark.slow
def test_streamed_and_in_memory_do_the_same_work_with_backgrounds(tmp_path, monkeypatch, capsys):
    drawn, out = write_drawn(tmp_path / "drawn", 120, size=48), tmp_path / "out"
    prepare(drawn, out, size=16)
    monkeypatch.setattr(streaming, "STEPS", 2)
    words = [out, "--size", 16, "--seconds", 1, "--backgrounds", "drawn"]
    trained = run(monkeypatch, capsys, "train", *words)
    assert 70 < trained["pictures"] < 100  # the training split of 120
    assert trained["rounds"] >= 3


@pytest.mark.slow
def test_stages_find_what_one_process_does(tmp_path, monkeypatch, capsys):
    words = tmp_path, "--count", 200, "--parts", 2
    measured = run(monkeypatch, capsys, "stages", *words)
    assert measured["same_groups"]
    assert measured["with_near_duplicates"] == 40
    assert len(measured["sign"]) == len(measured["compare"]) == 2


@pytest.mark.slow
def test_parts_of_made_images_are_joined(tmp_path, monkeypatch, capsys):
    words = tmp_path, "--count", 120, "--parts", 2
    measured = run(monkeypatch, capsys, "join", *words)
    assert measured["images"] == 120
    assert "3 shards written" in measured["set"]
    assert read_tfds(f"gear@{tmp_path / 'set'}", size=16).metadata["size"] == 16
    again = run(monkeypatch, capsys, "join", *words)  # on the images that are there
    assert again["set"] == measured["set"]


@pytest.mark.slow
def test_a_made_set_is_recorded_opened_by_a_host_and_read_in_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROWS", 200)
    run(monkeypatch, capsys, "tables", tmp_path / "out", "--count", 8000)
    assert run(monkeypatch, capsys, "open", tmp_path / "out", "--host", 3)["pictures"] == 8000
    recorded = run(monkeypatch, capsys, "record", tmp_path / "out")
    assert recorded["bytes_written"] > 8000 * 100  # rows of JSON
    words = "--window", 320, "--batch-size", 32, "--hosts", 16
    read = run(monkeypatch, capsys, "windows", tmp_path / "out", *words)
    assert (
        read["windows_16_hosts"]["shards_a_batch"] < 1.2 < read["whole_16_hosts"]["shards_a_batch"]
    )
    near = [read[f"{order}_16_hosts"]["next_to_another"] for order in ("whole", "windows")]
    assert near[0] < 0.3 < 0.5 < near[1]


def test_a_burst_is_a_fifth_of_the_images(tmp_path, monkeypatch, capsys):
    measured = run(monkeypatch, capsys, "group", tmp_path, "--count", 200, "--rounds", 1)
    assert measured["images"] == 200  # the number of groups is asserted by the task
    burst, different = (measured["seconds"][name] for name in ("burst", "different"))
    assert measured["ratio"] == pytest.approx(burst / different, abs=0.02)


def test_a_dash_is_stdout(tmp_path: Path, monkeypatch, capsys):
    """Which then has the table alone; what is measured is made up here."""
    work = tmp_path / "work"
    for k in range(1000):
        file = tmp_path / "drawn" / "axes" / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(scaling, "_run", lambda *words: {"seconds": 2.0, "mib": 300.0})
    trained = {"stream_images_per_second": 500, "stream_mib": 700}
    monkeypatch.setattr(scaling.streaming, "memory", lambda arguments: trained)
    monkeypatch.setattr(scaling, "draw", lambda rows: b"a plot")
    words = ["grow", tmp_path / "drawn", "--csv", "-", "--plot", "scale.png"]
    monkeypatch.setattr(sys, "argv", ["scale", *map(str, words)])
    scale.main()
    table, said = capsys.readouterr()
    assert [row["phase"] for row in csv.DictReader(table.splitlines())] == list(scaling.PHASES)
    assert json.loads(said.splitlines()[-1]) == {"task": "grow", "rows": 3}
    assert [(path.name, path.read_bytes()) for path in work.iterdir()] == [("scale.png", b"a plot")]
