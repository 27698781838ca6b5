"""The main job, as its users call it: a run folder, its files, going on after an interruption."""

import csv
import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import PIL.Image
import pytest
from events import as_shown, of_history, scalars, shown_histograms
from in_process import exit_code
from safetensors.numpy import save_file

from jaxgear import cli
from jaxgear.bundle.bundle import Bundle
from jaxgear.data.dataset import open_dataset
from jaxgear.data.sources import drawn_set
from jaxgear.errors import UsageError
from jaxgear.evaluation import calibration, metrics
from jaxgear.evaluation.comparison import compare
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.experiment.flags import parse
from jaxgear.experiment.recipe import Data
from jaxgear.machine import devices
from jaxgear.models.pretrained.backbone import load_backbone
from jaxgear.models.pretrained.files.weights_files import read_weights
from jaxgear.prediction import predictor as prediction
from jaxgear.program.apply import forward, init
from jaxgear.training.runs.run import Run
from scripts.benchmarks.commands import SHORT

ROOT = Path(__file__).parents[1]
TINY = ["--data", "drawn:120", "--image-size", "32", "--batch-size", "16"]
SMALL = [*TINY, "--width", "0.25"]  # of experiments.scratch: a run takes half the time

pytestmark = pytest.mark.one_cache


def run(*arguments, module="experiments.scratch", **options):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def within(*arguments, module="experiments.scratch"):
    """Runs the command of an experiment in this process; its exit code."""
    module = importlib.import_module(module)
    return exit_code(lambda: cli.run_experiment(module.main, module.Config), *arguments)


def tiny(*arguments):
    """A run of a tiny network within this process; its exit code."""
    return within(*arguments, module="small_experiment")


def rows(folder):
    with (folder / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A run of three epochs: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("runs with space Ü雪")
    environment = os.environ | {"JAXGEAR_CACHE": str(cache), "COLUMNS": "80"}
    done = run(*SMALL, "--epochs", 3, "--out", out, env=environment)
    assert done.returncode == 0, done.stderr
    (folder,) = out.iterdir()
    return folder, done.stdout


@pytest.fixture(scope="module")
def short(cache, tmp_path_factory):
    """The folder of a run of a tiny network, of three epochs."""
    out = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        assert tiny(*TINY, "--epochs", 3, "--out", out) == 0
    (folder,) = out.iterdir()
    return folder


def test_run_folder_holds_the_contract(finished):
    folder, _ = finished
    assert folder.name.startswith("scratch-")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "environment.json", "experiment.py", "splits.json", "history.csv",
        "curves.png", "test.json", "confusion.png", "predictions.png", "checkpoints", "model",
    }  # fmt: skip
    for name in ("curves.png", "confusion.png", "predictions.png"):
        with PIL.Image.open(folder / name) as picture:
            assert min(picture.size) > 300
    assert (folder / "experiment.py").read_text() == (ROOT / "experiments/scratch.py").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert (config["epochs"], config["image_size"], config["seed"]) == (3, 32, 0)
    assert (folder / "history.csv").read_text().splitlines()[0] == (
        "epoch,step,train_loss,val_loss,train_accuracy,val_accuracy,learning_rate,seconds"
    )
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3"]
    assert json.loads((folder / "environment.json").read_text())["flops_per_step"] > 1e6


def test_last_line_is_the_run_and_its_test_accuracy(finished):
    folder, printed = finished
    accuracy = json.loads((folder / "test.json").read_text())["accuracy"]
    assert printed.splitlines()[-1] == f"{folder}\ttest accuracy {accuracy:.4f}"
    assert "\x1b" not in printed  # no escape codes where there is no terminal
    assert sum(line.startswith("epoch ") for line in printed.splitlines()) == 3


def test_no_group_is_on_two_splits_and_all_pictures_are_listed(finished):
    folder, _ = finished
    pictures = json.loads((folder / "splits.json").read_text())["pictures"]
    assert len(pictures) == 120
    splits = {}
    for picture in pictures:
        if picture["side"] != "left_out":
            splits.setdefault(picture["group"], set()).add(picture["side"])
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_evaluate_on_the_test_split_gives_test_json(finished, tmp_path):
    """The bundle on copies of the test pictures: the same numbers at any batch size."""
    folder, _ = finished
    expected = json.loads((folder / "test.json").read_text())
    source = drawn_set("drawn:120")
    for picture in json.loads((folder / "splits.json").read_text())["pictures"]:
        if picture["side"] == "test":
            copy = tmp_path / "test" / picture["path"]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((source / picture["path"]).read_bytes())
    for size in (1, 7, 1000):
        command = ["evaluate", folder, tmp_path / "test", "--json", tmp_path / "found.json",
                   "--batch-size", size]  # fmt: skip
        if size == 7:  # as its users call it; the others in this process, which is ready
            done = run(*command, module="jaxgear")
            assert done.returncode == 0, done.stderr
        else:
            with pytest.raises(SystemExit) as stop:
                cli.main([str(word) for word in command])
            assert stop.value.code == 0
        found = json.loads((tmp_path / "found.json").read_text())
        for name in ("loss", "ece"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5)
        rest = found.keys() - {"loss", "ece"}
        assert {k: found[k] for k in rest} == {k: expected[k] for k in rest}


def test_bundle_is_the_best_epoch(finished):
    folder, _ = finished
    bundle = Bundle.load(folder)
    losses = [float(row["val_loss"]) for row in rows(folder)]
    assert bundle.about["epoch"] == int(np.argmin(losses)) + 1
    assert len(bundle.classes) == 12


def test_an_interrupted_run_goes_on_to_the_same_end(finished, tmp_path, monkeypatch, capfd):
    """SIGTERM after the first epoch, then --resume: parameters, history and test are the same."""
    straight, _ = finished
    record = Run.record

    def interrupted(run, state, row):
        record(run, state, row)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", interrupted)
        assert within(*SMALL, "--epochs", 3, "--out", tmp_path) == 143
    (folder,) = tmp_path.iterdir()
    complaint = capfd.readouterr().err
    assert complaint.splitlines() == [f"interrupted; continue with --resume {folder}"]
    assert [row["epoch"] for row in rows(folder)] == ["1"]
    assert not (folder / "test.json").exists()
    assert within("--resume", folder) == 0
    assert rows(folder) == rows(straight)
    for name in ("model/weights.safetensors", "test.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def test_a_run_interrupted_before_its_test_is_tested(short, tmp_path):
    """All epochs are done and no result is there: --resume trains nothing and tests."""
    folder = Path(shutil.copytree(short, tmp_path / short.name))
    (folder / "test.json").unlink()
    assert tiny("--resume", folder) == 0
    assert rows(folder) == rows(short)
    assert (folder / "test.json").read_bytes() == (short / "test.json").read_bytes()


def test_resume_refuses_other_flags_and_takes_more_epochs(finished, capfd):
    folder, _ = finished
    assert within("--resume", folder, "--peak-lr", "0.5") == 2
    assert "--peak-lr (the run has 0.02)" in capfd.readouterr().err


def test_an_older_run_goes_on_with_a_tracker_and_a_profile(short, tmp_path, capfd):
    """Its config has no such fields. What is shown begins with its first epoch."""
    folder = Path(shutil.copytree(short, tmp_path / short.name))
    config = json.loads((folder / "config.json").read_text())
    assert (config.pop("track"), config.pop("profile")) == ("", 0)
    (folder / "config.json").write_text(json.dumps(config))
    track = ["--track", "tensorboard", "--profile", 2]
    assert tiny("--resume", folder, "--epochs", 5, *track) == 0
    printed = capfd.readouterr().out
    (trace,) = (folder / "profile").rglob("*.trace.json.gz")
    assert f"profile of 2 steps: {trace}" in printed
    found = scalars(folder)
    assert {step for _, step in found} == {1, 2, 3, 4, 5}
    expected = as_shown(of_history(folder))
    assert {key: found[key] for key in expected} == expected
    drawn = shown_histograms(folder)
    assert {step for _, step in drawn} == {5}
    updated = {name.partition("/")[2] for name, _ in drawn if name.startswith("updates/")}
    assert {f"{kind}/{name}" for kind in ("parameters", "updates") for name in updated} == {
        name for name, _ in drawn
    }
    tested = json.loads((folder / "test.json").read_text())
    assert found["test_accuracy", tested["epoch"]] == np.float32(tested["accuracy"])
    assert tiny("--resume", folder) == 0  # it keeps its tracker, and traces no more
    assert "profile of" not in capfd.readouterr().out
    assert scalars(folder) == found
    assert shown_histograms(folder) == drawn
    assert json.loads((folder / "config.json").read_text())["track"] == "tensorboard"
    comparison = compare([FinishedRun.read(short), FinishedRun.read(folder)])
    assert set(comparison.differing) == {"epochs"}


@pytest.mark.parametrize("experiment", ["scratch", "transfer", "reference"])
def test_a_mistake_ends_the_process_with_its_line_and_code(experiment, tmp_path):
    """Its process prints nothing else, and starts no run."""
    done = run("--epochs", "0", "--out", tmp_path / "out", module=f"experiments.{experiment}")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "--epochs" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--peak-lrr", "1"], 2, ["--peak-lrr", "--peak-lr"]),
        (["--peak-lr", "abc"], 2, ["--peak-lr"]),
        (["--peak-lr", "-1"], 2, ["--peak-lr"]),
        (["--warmup", "1"], 2, ["--warmup"]),
        (["--width", "0"], 2, ["--width"]),
        (["--width", "0.001"], 2, ["--width"]),
        (["--seed", "99999999999999999999"], 2, ["--seed", "4294967295"]),
        (["--label-smoothing", "1.5"], 2, ["--label-smoothing"]),
        (["--peak-lr", "0"], 2, ["--peak-lr"]),
        (["--optimizer", "adam"], 2, ["--optimizer", "scratch.py, line "]),
        (["--lr", "0.1"], 2, ["--lr", "--peak-lr", "scratch.py, line "]),
        (["--model", "resnet"], 2, ["--model", "scratch.py, line "]),
        (["--batch-size", "0"], 2, ["--batch-size"]),
        (["--batch-size", "1000", "--data", "drawn:120"], 2, ["--batch-size 1000"]),
        (["--epochs", "0"], 2, ["--epochs"]),
        (["--track", "wandb"], 2, ["--track wandb", "tensorboard, mlflow"]),
        (["--profile", "-1"], 2, ["--profile"]),
        (["--data", "no/such/folder"], 4, ["no/such/folder"]),
        (["--data", "drawn:many"], 4, ["drawn:many"]),
        (["--resume", "no/such/run"], 5, ["no/such/run"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_and_a_code(arguments, code, words, tmp_path, capfd):
    found = within(*arguments, "--out", tmp_path / "out")
    complaint = capfd.readouterr().err
    assert found == code, complaint
    lines = complaint.strip().splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_ends_its_process_with_its_line_and_code(tmp_path):
    flags = ["--peak-lr", "1e30", "--epochs", "2", "--out", tmp_path]
    done = run(*TINY, *flags, module="tests.small_experiment")
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert "step" in line
    assert "learning rate" in line


@pytest.mark.parametrize(
    ("flag", "start"), [("optimizer", "optimizer="), ("loss", "loss="), ("model", "model = "),
                        ("learning_rate", "rate=")],
)  # fmt: skip
@pytest.mark.parametrize("experiment", ["scratch", "transfer", "reference"])
def test_a_flag_that_is_a_decision_names_its_line(experiment, flag, start):
    """The line that is named holds that decision; of a file that leaves it out, the first."""
    module = importlib.import_module(f"experiments.{experiment}")
    with pytest.raises(UsageError, match=r", line \d+$") as error:
        parse(module.Config, [f"--{flag}", "x"])
    file, number = str(error.value).rpartition("change it in ")[2].split(", line ")
    assert file == module.__file__
    lines = Path(file).read_text().splitlines()
    line = lines[int(number) - 1].strip()
    assert line.startswith((start, "model=")) or int(number) == 1


@pytest.mark.parametrize("size", [1, 7, 33, 225, 299])
def test_the_network_takes_images_of_any_size(size):
    from experiments import scratch

    made = scratch.recipe(scratch.Config(width=0.1), Data(counts=(5, 5), batch_size=2))
    images = np.zeros((2, size, size, 3), np.uint8)
    shapes = jax.eval_shape(lambda x: init(made.model, jax.random.key(0), x), images)
    assert made.model.layers[0].patch == 2
    run = lambda v, x: forward(made.model)(v, x, train=False)  # noqa: E731
    assert jax.eval_shape(run, shapes, images).shape == (2, 2)


def test_a_recipe_is_data_that_can_be_taken_apart():
    """No picture is read for one, and a field is changed without touching the file."""
    from experiments import scratch, transfer

    data = Data(counts=(100, 40, 20), batch_size=16)
    config = scratch.Config(epochs=2, batch_size=16, balance=1.0, added_share=0.5)
    made = scratch.recipe(config, data)
    assert made.added == 0.5
    assert data.steps(2) == 20
    peak = 0.02 * 16 / 48
    rates = [float(made.schedule(step)) for step in range(20)]
    assert max(rates) == pytest.approx(peak)
    assert np.argmax(rates) == 4  # a fifth of all steps
    np.testing.assert_allclose(made.class_weights[2] / made.class_weights[0], 5, rtol=1e-6)
    assert made.class_weights[[0] * 100 + [1] * 40 + [2] * 20].mean() == pytest.approx(1)
    asked = []
    other = dataclasses.replace(made, optimizer=lambda rate: asked.append(rate) or optax.sgd(rate))
    assert other.tx
    assert asked == [made.schedule]
    config = transfer.Config(weights=str(WEIGHTS))
    frozen = transfer.recipe(config, data)
    tuned = transfer.recipe(dataclasses.replace(config, finetune=4), data)
    assert tuned.first.rate(0) == frozen.rate(0)
    assert (tuned.loss is not None, tuned.outliers, tuned.evidence) == (True, 0.1, 0.25)
    assert tuned.handed_on.mirror
    assert not tuned.model.mirror


@pytest.mark.parametrize(
    ("switch", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_dtype_promotion", "strict"),
    ],
)
def test_switches_of_jax_that_change_arithmetic_are_one_line(switch, value, monkeypatch):
    monkeypatch.setattr(type(jax.config), switch, value)
    with pytest.raises(UsageError, match=f"^{switch.upper()}={value}: "):
        devices.check_switches()


@pytest.mark.parametrize("experiment", ["scratch", "transfer"])
def test_a_probability_is_at_most_one(experiment):
    config = importlib.import_module(f"experiments.{experiment}").Config
    with pytest.raises(UsageError, match=r"^--paste 1\.5: must be at least 0 and at most 1$"):
        parse(config, ["--paste", "1.5"])
    assert parse(config, ["--paste", "1"]).paste == 1


def test_a_run_is_resumed_where_its_pictures_are_now(tmp_path, capfd):
    """Under another name, with a slash at the end, from another folder; not of other pictures."""
    here = Path(shutil.copytree(drawn_set("drawn:60"), tmp_path / "pics"))
    flags = ["--image-size", "16", "--batch-size", "8"]
    assert tiny("--data", here, *flags, "--epochs", 1, "--out", tmp_path / "runs") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    moved = here.rename(tmp_path / "moved")
    assert tiny("--resume", folder, "--epochs", 2, "--data", f"{moved}/") == 0
    assert len(rows(folder)) == 2
    assert json.loads((folder / "config.json").read_text())["data"] == f"{moved}/"
    next(moved.glob("*/*")).unlink()
    capfd.readouterr()
    assert tiny("--resume", folder, "--epochs", 3, "--data", moved) == 5
    assert "1 pictures have changed" in capfd.readouterr().err


def test_config_of_a_run_starts_the_same_run(finished):
    from experiments import scratch

    folder, _ = finished
    config = scratch.Config(**json.loads((folder / "config.json").read_text()))
    assert config == dataclasses.replace(
        scratch.Config(), data="drawn:120", image_size=32, batch_size=16, epochs=3, width=0.25,
        out=config.out,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_compile")
def test_photographs_reach_ninety_percent_on_a_short_schedule(shared, tmp_path):
    """The main job on real pictures, as `scripts/bench.py reach` runs it."""
    short = [word for flag in SHORT.items() for word in flag]
    done = run("--data", shared / "data/gear", "--out", tmp_path, *short)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "test.json").read_text())["accuracy"] >= 0.90


WEIGHTS = ROOT / "tests/models/golden/resnet18_width2.pth"
TRANSFER = ["--weights", WEIGHTS, *TINY, "--epochs", "2", "--views", "2"]


@pytest.mark.parametrize(("finetune", "views"), [(0, 0), (4, 0), (3, 2)])
def test_transfer_is_a_run_like_any_other(finetune, views, tmp_path, capfd):
    arguments = [*TRANSFER, "--finetune", finetune, "--finetune-epochs", "2", "--out", tmp_path]
    arguments += ["--finetune-views", views]
    assert within(*arguments, module="experiments.transfer") == 0
    (folder,) = tmp_path.iterdir()
    assert Bundle.load(folder).accept_from is None
    assert folder.name.startswith("transfer-")
    assert len(rows(folder)) == 2
    found = json.loads((folder / "test.json").read_text())
    bundle = Bundle.load(folder)
    dataset = open_dataset("drawn:120", size=32, seed=0, say=lambda line: None)
    test = dataset.test_split(folder)
    predictor = prediction.Predictor(bundle)
    logits = predictor.logits(test.images)
    summary = metrics.summarise(logits, test.labels, dataset.classes, bundle.temperature)
    for name in ("loss", "ece", "temperature"):
        assert summary[name] == pytest.approx(found[name], rel=1e-4)
    val = dataset.split("val")
    temperature = calibration.fit_temperature(predictor.logits(val.images), val.labels)
    assert bundle.temperature == pytest.approx(temperature, rel=1e-3)
    known = [bundle.split_of(record.sha256) for record in dataset.folder.records]
    assert known == list(dataset.splits)
    stages = {"conv1": True, "layer2_1": True, "layer4_0": finetune == 0}
    stages["layer3_0"] = finetune in (0, 4)
    before = load_backbone(WEIGHTS).variables["params"]
    for name, frozen in stages.items():
        kernel = before[name]["kernel"] if name == "conv1" else before[name]["conv1"]["kernel"]
        path = "conv1/kernel" if name == "conv1" else f"{name}/conv1/kernel"
        after = bundle.weights[f"params/backbone/{path}"]
        assert np.array_equal(after, kernel) == frozen, name
    others = tmp_path / "others.safetensors"
    save_file({n: np.asarray(2 * a) for n, a in read_weights(WEIGHTS).tensors.items()}, others)
    resumed = ["--resume", folder, "--weights", others, "--epochs", 3]
    assert within(*resumed, module="experiments.transfer") == 5
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.endswith("trained with other weights; name them with --weights")
    if views:  # the stages that would be frozen are others there
        flags = ["--finetune", 4, "--finetune-views", 2, "--init-from", folder]
        assert within(*TRANSFER, *flags, module="experiments.transfer") == 2
        line = capfd.readouterr().err.splitlines()[-1]
        assert line == f"error: --init-from {folder}: its frozen layers are not those of --weights"


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("experiments.transfer", TRANSFER),
        pytest.param("experiments.scratch", [*SMALL, "--epochs", 2], marks=pytest.mark.slow),
        pytest.param(
            "experiments.transfer",
            [*TRANSFER, "--finetune", 4, "--finetune-epochs", 1, "--finetune-views", 2],
            marks=pytest.mark.slow,
        ),
        pytest.param("experiments.reference", [*TINY, "--epochs", 1], marks=pytest.mark.slow),
    ],
)
def test_with_backgrounds_a_bundle_knows_what_is_no_gear(module, flags, tmp_path):
    assert within(*flags, "--backgrounds", "drawn", "--out", tmp_path, module=module) == 0
    (folder,) = tmp_path.iterdir()
    bundle = Bundle.load(folder)
    assert np.isfinite(bundle.accept_from)
    assert bundle.accepted_shares()["pasted"] == pytest.approx(0.95, abs=1e-6)
    found = json.loads((folder / "test.json").read_text())
    test = open_dataset("drawn:120", size=32, seed=0, say=lambda line: None).test_split(folder)
    scores = bundle.score(prediction.Predictor(bundle).logits(test.images))
    assert found["accepted"] == pytest.approx((scores >= bundle.accept_from).mean(), abs=0.06)


def test_the_reference_is_a_run_like_any_other(tmp_path):
    assert within(*TINY, "--epochs", 1, "--out", tmp_path, module="experiments.reference") == 0
    (folder,) = tmp_path.iterdir()
    assert len(Bundle.load(folder).classes) == 12


def test_transfer_without_its_weights_says_what_to_do(tmp_path, capfd):
    flags = ["--weights", "no/such/file", *TINY, "--out", tmp_path / "out"]
    assert within(*flags, module="experiments.transfer") == 5
    assert "no/such/file" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
