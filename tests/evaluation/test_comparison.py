"""Runs are grouped by method, and compared fairly or with a warning."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from made_runs import SOURCE, write_run
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.evaluation import comparison
from jaxgear.evaluation.comparison import groups
from jaxgear.evaluation.finished import FinishedRun

ADAMW = SOURCE.replace("muon", "adamw")


def compared(*paths):
    return comparison.compare([FinishedRun.read(path) for path in paths])


@pytest.fixture
def optimizers(tmp_path):
    """Muon and AdamW, three seeds each, as a researcher would have them."""
    return [
        write_run(
            tmp_path / f"{name}-{seed}", accuracy=accuracy + 0.1 * seed, seed=seed, source=source
        )
        for name, source, accuracy in (("muon", SOURCE, 0.5), ("adamw", ADAMW, 0.52))
        for seed in (0, 1, 2)
    ]


def test_seeds_of_one_method_are_a_group_and_another_source_is_not(optimizers):
    found = compared(*optimizers)
    assert [len(group.runs) for group in found.groups] == [3, 3]
    one = found.groups[0].spread("test_accuracy")
    assert (one.mean, one.std, one.n) == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert found.groups[0].spread("seconds").mean == 6.0
    assert found.groups[0].spread("best_epoch").mean == 2
    assert found.sources == {"B": ("-tx = optax.muon(schedule)", "+tx = optax.adamw(schedule)")}
    assert found.differing == {}
    assert found.warnings == ()


def test_runs_of_a_set_with_its_own_test_split_are_paired_by_seed(tmp_path):
    """Each seed has the same test images: none of the runs is left out."""
    runs = [
        write_run(
            tmp_path / f"{lr}-{seed}", accuracy=0.5 + lr / 10 + seed / 100, seed=seed, lr=lr,
            test_pictures="own",
        )
        for lr in (1, 2)
        for seed in range(5)
    ]  # fmt: skip
    found = compared(*runs)
    pair = found.pairs["B"]["test_accuracy"]
    assert pair.n == 5
    assert pair.mean == pytest.approx(0.1)
    assert set(found.probability_best) == {"A", "B"}


def test_pairing_takes_the_seed_out_of_the_difference(optimizers):
    """Each group spreads by 0.1, their difference not at all."""
    pair = compared(*optimizers).pairs["B"]["test_accuracy"]
    assert (pair.mean, pair.n) == (pytest.approx(0.02), 3)
    assert pair.std == pytest.approx(0, abs=1e-12)


def test_a_difference_has_an_interval_and_a_probability(optimizers):
    found = compared(*optimizers)
    pair = found.pairs["B"]["test_accuracy"]
    assert pair.low == pytest.approx(0.02)  # no spread
    assert pair.verdict() == "may be luck; about 3 more seeds would tell"  # the sign test
    assert (found.best_by, found.probability_best) == ("test_accuracy", {"A": 0.0, "B": 1.0})


def test_the_work_is_in_proportion_to_the_runs(tmp_path, monkeypatch):
    """Also where the first group has as many runs as there are groups."""
    asked = []
    split = FinishedRun.split
    monkeypatch.setattr(FinishedRun, "split", lambda *words: asked.append(words) or split(*words))
    counts = []
    for n in (5, 10, 20):
        seeds = [write_run(tmp_path / f"{n}-seed-{k}", seed=k) for k in range(n)]
        rates = [write_run(tmp_path / f"{n}-rate-{k}", lr=k) for k in range(n)]
        asked.clear()
        compared(*seeds, *rates)
        counts.append(len(asked))
    assert counts[0] * 4 == counts[1] * 2 == counts[2]


def test_config_keys_that_differ_are_named(tmp_path):
    paths = [write_run(tmp_path / str(rate), lr=rate, epochs=3) for rate in (0.1, 0.2)]
    other = write_run(tmp_path / "other", lr=0.1, epochs=3, dropout=None)
    assert compared(*paths, other).differing == {
        "lr": {"A": 0.1, "B": 0.2, "C": 0.1},
        "dropout": {"C": None},  # the others have no such flag
    }


def test_other_pictures_are_warned_about(tmp_path):
    first = write_run(tmp_path / "first")
    seed = write_run(tmp_path / "seed", seed=1, lr=2)
    data = write_run(tmp_path / "data", fingerprint="e" * 64, lr=3)
    again = write_run(tmp_path / "again")
    assert "same seeds" in "".join(compared(first, seed).warnings)
    assert compared(first, seed).pairs == {"B": {}}
    assert "different pictures or labels" in "".join(compared(first, data).warnings)
    assert compared(first, data).pairs["B"]  # tested on the same
    other = write_run(tmp_path / "other", fingerprint="d" * 64, lr=4, test_pictures="z")
    assert "different pictures (fingerprints differ)" in "".join(compared(first, other).warnings)
    label = write_run(tmp_path / "label", fingerprint="d" * 64, lr=5, test_label="boots")
    (warning,) = compared(first, label).warnings
    assert warning.startswith(
        "1 test pictures have another label in some runs, for example axes/c0"
    )
    assert "several runs of seed 0" in "".join(compared(first, again).warnings)


def test_a_run_without_its_test_is_compared_by_validation(tmp_path):
    found = compared(write_run(tmp_path / "a"), write_run(tmp_path / "b", accuracy=None, lr=1))
    assert found.groups[1].spread("test_accuracy") is None
    assert found.groups[1].spread("val_loss").mean == 1.0
    assert "not tested yet" in found.warnings[0]
    closed = write_run(tmp_path / "c", accuracy=None, test=False, lr=2)  # on purpose
    assert compared(tmp_path / "a", closed).warnings == ()


def test_spread_is_the_sample_standard_deviation():
    values = [0.3, 0.9, 0.4]
    found = comparison.spread(values)
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert comparison.spread([1.0]).std is None
    assert comparison.spread([]) is None


def test_the_work_of_training_is_that_of_its_steps(tmp_path, capsys):
    """A run of older code has no figure of it."""
    counted = [
        write_run(tmp_path / str(seed), seed=seed, environment={"flops_per_step": 10**9})
        for seed in (0, 1)
    ]
    older = write_run(tmp_path / "older", lr=1)
    found = compared(*counted, older)
    assert found.groups[0].spread("flops").mean == 30 * 10**9
    assert found.groups[1].spread("flops") is None
    with pytest.raises(SystemExit):
        cli.main(["compare", *map(str, counted), str(older)])
    head, first, second, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "FLOPs"
    assert first.endswith("3e+10 ± 0")
    assert second.split()[-1] == "-"


def test_labels_go_on_after_z():
    labels = [groups._label(index) for index in range(60)]
    assert labels[25:28] == ["Z", "AA", "AB"]
    assert len(set(labels)) == 60


def test_test_pictures_that_were_trained_on_are_said(tmp_path):
    """By the run itself, by the model that its weights are from, or nobody knows."""
    make_bundle(known={"c1": "train", "c2": "val"}).save(tmp_path / "start" / "model")
    clean = write_run(tmp_path / "clean", seed=3, init_from=str(tmp_path / "start"))
    chosen = write_run(tmp_path / "chosen", seed=2, init_from=str(tmp_path / "start"))
    taken = write_run(tmp_path / "taken", seed=1, init_from=str(tmp_path / "start/model"))
    gone = write_run(tmp_path / "gone", seed=0, init_from=str(tmp_path / "no"))
    own = write_run(tmp_path / "own", test_pictures="a")
    found = compared(clean, chosen, taken, gone, own)
    said = [line for line in found.warnings if "trained on" in line]
    assert [line.split(":")[0] for line in said] == [str(taken), str(gone), str(own)]
    assert "1 of its 1 test pictures were trained on by" in said[0]
    assert "is not known" in said[1]
    runs = [one for group in comparison.to_dict(found)["groups"] for one in group["runs"]]
    assert [one["test_trained_on"] for one in runs if one["run"] in map(str, (clean, taken))] == [
        {}, {str(tmp_path / "start/model"): 1}
    ]  # fmt: skip


def test_command_prints_draws_and_writes(optimizers, tmp_path, capsys):
    files = {flag: tmp_path / f"found.{flag}" for flag in ("out", "csv", "json")}
    flags = [word for flag, path in files.items() for word in (f"--{flag}", str(path))]
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *map(str, optimizers), *flags])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "0.6000 ± 0.1000" in printed
    assert "+tx = optax.adamw(schedule)" in printed
    with PIL.Image.open(files["out"]) as picture:
        assert picture.format == "PNG"
    table = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert [(line["group"], line["seed"]) for line in table] == [
        (group, seed) for group in "AB" for seed in "012"
    ]
    found = json.loads(files["json"].read_text())
    assert found["groups"][1]["test_accuracy"]["mean"] == pytest.approx(0.62)


@pytest.mark.parametrize(
    ("runs", "code", "word"),
    [
        (["no/run"], 5, "no/run"),
        (["muon-0", "./muon-0"], 2, "more than once"),
        (["muon-0", "no/run"], 5, "no/run"),
        (["empty", "bad"], 5, "empty: no epoch"),
    ],
)
def test_mistakes(optimizers, tmp_path, runs, code, word, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "empty", losses=())
    (write_run(tmp_path / "bad") / "splits.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *runs])
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert word in lines[0]


def test_what_cannot_be_read_is_left_out_by_name(optimizers, tmp_path, capsys, monkeypatch):
    """A crashed run, a damaged one, and other files, as `RUNS/*` names them."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "empty", losses=())
    (write_run(tmp_path / "bad") / "splits.json").write_text("{}")
    (write_run(tmp_path / "cut") / "history.csv").write_text("epoch,step,train_loss\n1,2")
    Path("study.csv").write_text("trial,seed\n")
    odd = ["empty", "bad", "cut", "study.csv"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", *map(str, optimizers), *odd, "--json", "a.json"])
    assert stop.value.code == 0
    warnings = json.loads(Path("a.json").read_text())["warnings"]
    named = ["empty", "bad", "cut/history.csv", "study.csv"]
    assert [line.split(":")[0] for line in warnings] == named
    assert all(line.endswith("; left out") for line in warnings)
    printed = capsys.readouterr().out
    assert all(f"warning: {line}" in printed for line in warnings)
    assert "A     3" in printed


@pytest.mark.parametrize(("groups", "members"), [(1000, 1), (3, 200)])
def test_curves_of_many_runs_are_bounded(groups, members):
    """The best groups are drawn; the mean is over all runs of a group."""
    from made_runs import row

    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots import learning_curves

    rows = {
        f"{index:04d}": [(row(1, 9.0 - index / 200), row(2, 9.5)) for _ in range(members)]
        for index in range(groups)
    }
    figure = learning_curves.runs(rows)
    labels = [text.get_text()[:4] for text in figure.legends[0].get_texts()]
    assert labels == sorted(rows)[-learning_curves.MOST :]
    assert len(figure.axes[0].lines) <= 2 * learning_curves.MOST * min(groups, 28) + groups
    assert max(figure.get_size_inches()) < 12
    assert (f"of {groups} groups" in figure.get_suptitle()) == (groups > learning_curves.MOST)
    assert len(plots.png(figure)) < 2_000_000


def test_curves_of_runs_of_different_length_have_a_mean_over_all(tmp_path):
    from jaxgear.evaluation.plots import learning_curves

    runs = [FinishedRun.read(write_run(tmp_path / str(n), [3.0 + n] * n)).rows for n in (2, 4)]
    losses = learning_curves.runs({"A": runs}).axes[0]
    thick = max(losses.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(thick.get_ydata(), [6.0, 6.0])


def test_curves_beside_each_other_have_one_axis_and_both_lines():
    from made_runs import row

    from jaxgear.evaluation.plots import learning_curves

    runs = {"plain": [row(1, 2.0), row(2, 3.0)], "varied": [row(1, 1.0)]}
    figure = learning_curves.curves_beside(runs)
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("plain", "varied")
    assert first.get_ylim() == second.get_ylim()
    for axes, rows in zip(figure.axes, runs.values(), strict=True):
        drawn = [list(line.get_ydata()) for line in axes.lines]
        assert [r.train_loss for r in rows] in drawn
        assert [r.val_loss for r in rows] in drawn
