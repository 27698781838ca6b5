"""The benchmark's tasks do the work that they say, and its last line is JSON with their fields."""

import json
import shlex
import sys

import pytest
from pictures import write_set

from scripts import bench

pytestmark = pytest.mark.one_cache


def call(monkeypatch, capsys, *words):
    """The last line of stdout."""
    monkeypatch.setattr("sys.argv", ["bench", *map(str, words)])
    bench.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_input_reads_every_picture_and_finds_them_again(tmp_path, monkeypatch, capsys):
    folder = write_set(tmp_path / "gear", {"axes": 20, "boots": 20})
    found = call(monkeypatch, capsys, "input", "--data", folder, "--size", 64, "--pairs", 2)
    assert (found["task"], found["images"], found["runs"]) == ("input", 40, 2)
    assert 0 < found["images_per_second"] < found["cached_images_per_second"]
    with pytest.raises(SystemExit, match="--data"):
        call(monkeypatch, capsys, "input")


def test_the_ratio_is_that_of_the_medians(monkeypatch, capsys):
    ours, theirs = iter([1, 9, 2]), iter([4, 4, 8])
    task = lambda arguments: {"images_per_second": next(ours), "other": 7}  # noqa: E731
    monkeypatch.setitem(bench.TASKS, "input", (task, "images_per_second"))
    monkeypatch.setattr(bench, "run_peer", lambda command: {"images_per_second": next(theirs)})
    found = call(monkeypatch, capsys, "input", "--peer", "x", "--pairs", 3)
    assert found["images_per_second"] == 2
    assert (found["peer_images_per_second"], found["ratio"]) == (4, 0.5)
    assert (found["other"], found["runs"]) == (7, 3)


def test_a_peer_is_any_command_whose_last_line_is_json():
    code = "print('words'); print('{\"images_per_second\": 3}')"
    command = shlex.join([sys.executable, "-c", code])
    assert bench.run_peer(command) == {"images_per_second": 3}


def test_a_peer_starts_without_what_our_programs_ask_for(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--ours")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("KEPT", "1")
    code = "import json, os; print(json.dumps(sorted(os.environ)))"
    found = bench.run_peer(shlex.join([sys.executable, "-c", code]))
    assert "KEPT" in found
    assert not {"XLA_FLAGS", "GLIBC_TUNABLES"} & set(found)


@pytest.mark.slow
def test_epoch_times_the_experiment_with_and_without_backgrounds(monkeypatch, capsys):
    words = ["--data", "drawn:120", "--size", 16, "--seconds", 1]
    found = call(monkeypatch, capsys, "epoch", *words)
    assert found["images"] == 87
    assert found["epochs"] >= 3
    cost = found["images_per_second"] / found["backgrounds_images_per_second"]
    assert found["backgrounds_cost"] == pytest.approx(cost, rel=0.01)


@pytest.mark.slow
def test_start_ends_before_training_does(monkeypatch, capsys):
    found = call(monkeypatch, capsys, "start", "--data", "drawn:120")
    assert 0 < found["seconds"] < found["cold_seconds"]
