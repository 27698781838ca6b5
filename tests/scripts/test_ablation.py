"""The ablation table: rows of what was trained, made once, and their means."""

import csv
from pathlib import Path

import numpy as np
import pytest
from pictures import write_set

from jaxgear.bundle.bundle import Bundle
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.prediction.predictor import Predictor
from scripts import ablation

WEIGHTS = Path(__file__).parents[1] / "models/golden/resnet18_width2.pth"
TINY = {"weights": str(WEIGHTS), "image_size": 32, "views": 2, "epochs": 1, "batch_size": 8}
pytestmark = pytest.mark.one_cache


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["ablation", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        ablation.main()
    return stop.value.code


@pytest.mark.slow
def test_a_row_is_what_the_run_says_of_its_pictures_and_is_made_once(tmp_path, monkeypatch, capsys):
    write_set(tmp_path / "gear", {"axes": 14, "boots": 12, "tents": 12})
    write_set(tmp_path / "wild", {"axes": 2, "tents": 3}, start=500)
    write_set(tmp_path, {"photos": 10}, start=900)
    monkeypatch.setattr(ablation, "BASELINE", TINY)
    words = ["--data", tmp_path / "gear", "--photographs", tmp_path / "photos"]
    words += ["--composites-from", tmp_path / "photos", "--wild", tmp_path / "wild"]
    words += ["--seeds", 3, "--out", tmp_path / "out"]
    only = ["--only", "baseline", "regularised-head", "test-mirror"]
    assert call(monkeypatch, *words, *only) == 0
    rows = list(csv.DictReader((tmp_path / "out/ablation.csv").read_text().splitlines()))
    assert [row["variant"] for row in rows] == only[1:]
    assert rows[0]["run"] == rows[2]["run"]  # the same model, other views

    (run,) = (tmp_path / "out/runs/baseline-3").iterdir()
    finished, bundle = FinishedRun.read(run), Bundle.load(run)
    assert finished.config["paste"] == 0.9
    (other,) = (tmp_path / "out/runs/regularised-head-3").iterdir()
    changed = {k for k, v in FinishedRun.read(other).config.items() if v != finished.config[k]}
    assert changed == {"weight_decay", "dropout", "out"}
    val = finished.split("val")
    predictor = Predictor(bundle)

    def right(files, names):
        images = np.stack([letterbox(load_rgb(file), bundle.size) for file in files])
        labels = [bundle.classes.index(name) for name in names]
        mirrored = predictor.logits(images) + predictor.logits(images[:, :, ::-1])
        return predictor.logits(images).argmax(1) == labels, mirrored.argmax(1) == labels

    (pasted,) = (tmp_path / "out/composites").iterdir()
    files = sorted(pasted.rglob("*.jpg"))
    assert sorted(file.stem for file in files) == sorted(one.sha256[:16] for one in val)
    composite = right(files, [file.parent.name for file in files])
    catalogue = right([tmp_path / "gear" / one.path for one in val], [one.name for one in val])
    files = sorted((tmp_path / "wild").rglob("*.png"))
    wild = right(files, [file.parent.name for file in files])
    for row, kind in ((rows[0], 0), (rows[2], 1)):
        assert float(row["catalogue"]) == catalogue[kind].mean()
        assert float(row["composite"]) == composite[kind].mean()
        assert float(row["wild"]) == wild[kind].mean()
        assert float(row["wild_recall"]) == np.mean([wild[kind][:2].mean(), wild[kind][2:].mean()])

    before = (tmp_path / "out/ablation.csv").read_bytes()
    assert call(monkeypatch, *words, *only) == 0
    assert (tmp_path / "out/ablation.csv").read_bytes() == before
    assert len(list((tmp_path / "out/runs").iterdir())) == 2
    capsys.readouterr()


def test_the_table_is_the_mean_over_seeds_in_the_order_of_the_variants(
    tmp_path, monkeypatch, capsys
):
    names = ("variant", "seed", *ablation.FIGURES)
    rows = [("160-px", 1, 0.9, 0.5, 0.25, 0.5), ("baseline", 1, 1, 0.5, 0.5, 0.5)]
    rows.append(("160-px", 2, 0.8, 0.7, 0.25, 0.3))
    lines = [",".join(map(str, row)) for row in (names, *rows)]
    (tmp_path / "ablation.csv").write_text("\n".join(lines))
    assert call(monkeypatch, "--out", tmp_path, "--table") == 0
    table = capsys.readouterr().out.splitlines()
    assert table[2] == "| baseline | 1 | 1.000 | 0.500 | 0.500 | 0.500 |"
    assert table[3] == (
        "| 160-px | 2 | 0.850 ± 0.071 | 0.600 ± 0.141 | 0.250 ± 0.000 | 0.400 ± 0.141 |"
    )
    assert len(table) == 4


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch, capsys):
    words = ["--data", tmp_path, "--photographs", tmp_path / "none", "--out", tmp_path / "out"]
    assert call(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--photographs {tmp_path / 'none'}" in line
    assert not (tmp_path / "out").exists()
