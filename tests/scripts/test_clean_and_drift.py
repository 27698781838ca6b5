"""The scripts that measure `clean` and `check --since`: what they put in, and that they run."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from made_runs import untrained
from pictures import encoded, scene, write_set

from jaxgear.data.folder.read import read_folder
from jaxgear.errors import DataError, UsageError
from scripts import drift_batches, label_errors

WEIGHTS = Path(__file__).parents[1] / "models" / "golden" / "resnet18_width2.pth"


def test_wrong_labels_are_as_many_as_said_and_all_wrong(tmp_path):
    folder = read_folder(write_set(tmp_path / "set", {"axes": 20, "boots": 20, "gloves": 10}))
    changed, wrong = label_errors.with_wrong_labels(folder, 0.1, seed=3)
    pairs = list(zip(folder.records, changed.records, strict=True))
    assert {a.path for a, b in pairs if a.label != b.label} == wrong
    assert len(wrong) == 5
    assert all(a.sha256 == b.sha256 and 0 <= b.label < 3 for a, b in pairs)
    assert label_errors.with_wrong_labels(folder, 0.1, seed=3)[1] == wrong
    assert label_errors.with_wrong_labels(folder, 0.1, seed=4)[1] != wrong


def test_label_errors_prints_a_line_a_seed(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 15, "boots": 15})
    arguments = argparse.Namespace(
        folder=str(root), share=0.1, seeds=2, weights=str(WEIGHTS), image_size=32
    )
    label_errors.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as it is", "seed 0", "seed 1", "mean"]
    arguments.share = 1.0
    with pytest.raises(UsageError, match="--share"):
        label_errors.main(arguments)


def test_drift_batches_counts_what_is_flagged(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 60, "boots": 60})
    run = untrained(tmp_path / "runs", str(root), size=16)
    alike = write_set(tmp_path / "alike", {"axes": 15, "boots": 15}, start=1000)
    heap = tmp_path / "heap"
    heap.mkdir()
    for seed in range(25):
        pixels = np.repeat(scene(seed).mean(axis=2, keepdims=True) / 3, 3, axis=2)
        (heap / f"{seed}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    capsys.readouterr()
    arguments = argparse.Namespace(run=run, folder=[alike, heap], size=[20], batches=2, data=None)
    drift_batches.main(arguments)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{alike}: 0 of 2 batches of 20 below 0.05")
    assert second.startswith(f"{heap}: 2 of 2 batches of 20 below 0.05")
    arguments.size = [26]
    with pytest.raises(DataError, match="fewer than 26"):
        drift_batches.main(arguments)
