"""A bundle gives back the network that was put in, or a one-line error."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small_bundle import make_bundle

from jaxgear.bundle.bundle import Bundle
from jaxgear.data.splits.known import KnownPictures
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.evaluation import explain
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.program import Program, flat

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


@pytest.fixture
def bundle():
    model = ConvNet([Conv(4), GlobalPool()], classes=3)
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    return Bundle(
        program=Program.of(model, variables, 8),
        weights={name: np.asarray(leaf) for name, leaf in flat(variables).items()},
        classes=("axes", "boots", "Ü雪"),
        size=8,
        temperature=1.5,
        fingerprint="f" * 64,
        pictures=KnownPictures.of(["0a" * 32, "0b" * 32], ["train", "test"]),
        versions={"jax": "1"},
        about={"epoch": 3},
    )


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no flax")])
@pytest.mark.parametrize(
    "where",
    [
        "bundle.reading.load_safetensors",
        "program.stablehlo.jax.export.deserialize",
        "bundle.reading._read",
    ],
)
def test_what_the_machine_lacks_is_not_blamed_on_the_bundle(folder, monkeypatch, error, where):
    def short(*arguments, **named):
        raise error

    monkeypatch.setattr(f"jaxgear.{where}", short)
    with pytest.raises(type(error)):
        Bundle.load(folder)


@pytest.fixture
def folder(bundle, tmp_path):
    bundle.save(tmp_path / "run" / "model")
    return tmp_path / "run" / "model"


def test_loads_what_was_saved_from_bundle_or_run(bundle, folder):
    for path in (folder, folder.parent):
        restored = Bundle.load(path)
        for name in ("classes", "size", "temperature", "fingerprint", "versions", "about"):
            assert getattr(restored, name) == getattr(bundle, name)
        assert [restored.split_of(c * 32) for c in ("0a", "0b", "0c")] == [
            "train",
            "test",
            None,
        ]
        np.testing.assert_array_equal(
            restored.program.logits(restored.weights, IMAGES),
            bundle.program.logits(bundle.weights, IMAGES),
        )


OLDER = Path(__file__).parent / "older_bundle"


def test_a_bundle_of_the_version_before_gives_the_same_logits_and_maps():
    """Written by jaxgear 0.1.0 at be80048, whose network is a description in the card."""
    bundle = Bundle.load(OLDER)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    logits = bundle.program.logits(bundle.weights, images)
    np.testing.assert_allclose(logits, np.load(OLDER / "logits.npy"), atol=1e-5)
    np.testing.assert_allclose(
        explain.heat_maps(bundle, images), np.load(OLDER / "maps.npy"), atol=1e-4
    )
    assert bundle.split_of("0a" * 32) == "train"


@pytest.mark.parametrize(
    "model",
    [
        {"module": "ConvNet", "layers": [], "classes": 9},
        {"module": "Conv", "features": 9},
        {"module": "nonsense"},
        3,
    ],
    ids=str,
)
def test_another_network_in_an_older_card_is_refused(model, tmp_path):
    folder = shutil.copytree(OLDER, tmp_path / "older")
    edit(folder / "bundle.json", model=model)
    with pytest.raises(CheckpointError, match="older"):
        Bundle.load(folder)


def edit(card, **changes):
    value = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in (value | changes).items() if v is not None}))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"classes": None},
        {"classes": ["a", "b"]},
        {"preprocessing": {}},
        {"preprocessing": {"size": 8, "layout": "stretched"}},
        {"fingerprint": None},
        {"temperature": None},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"versions": None},
        {"versions": {}},
        {"fingerprint": ""},
        {"sha256": {}},
        {"sha256": {"weights.safetensors": "0" * 64}},
        {"head": None},
        {"head": "params/nothing"},
        {"head": 3},
        {"network": None},
    ],
    ids=str,
)
def test_a_card_that_lacks_or_contradicts_is_refused(folder, change):
    edit(folder / "bundle.json", **change)
    with pytest.raises(CheckpointError, match=str(folder.parent.name)) as error:
        Bundle.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["bundle.json", "weights.safetensors", "pictures.safetensors", "network.stablehlo"],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_damaged_files_are_refused_by_name(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(
        content[: len(content) // 2 if damage == "truncated" else 0]
    )
    with pytest.raises(CheckpointError, match=folder.name):
        Bundle.load(folder)


def test_something_else_is_not_a_bundle(tmp_path):
    with pytest.raises(CheckpointError, match="neither a run nor a bundle"):
        Bundle.load(tmp_path / "nothing")


def test_weights_that_are_not_finite_are_refused(bundle, tmp_path):
    bad = jax.tree.map(lambda x: np.full_like(x, np.nan), bundle.weights)
    dataclasses.replace(bundle, weights=bad).save(tmp_path)
    with pytest.raises(CheckpointError, match="not finite"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("accept_from", [None, 0.5, 2])
def test_the_score_of_gear_is_kept(tmp_path, accept_from):
    bundle = dataclasses.replace(make_bundle(), accept_from=accept_from)
    bundle.save(tmp_path / "model")
    found = Bundle.load(tmp_path)
    assert found.accept_from == accept_from
    logits = np.array([[1.0, 1.0, -2.0], [6.0, 0.0, -9.0]], np.float32)  # scores 1 and 6
    refused = [found.refuses(score) for score in found.score(logits)]
    assert refused == {None: [False, False], 0.5: [False, False], 2: [True, False]}[accept_from]


@pytest.mark.parametrize("value", [float("nan"), "high"])
def test_a_score_that_is_none_is_an_error(tmp_path, value):
    make_bundle().save(tmp_path / "model")
    card = json.loads((tmp_path / "model" / "bundle.json").read_text())
    (tmp_path / "model" / "bundle.json").write_text(json.dumps(card | {"accept_from": value}))
    with pytest.raises(CheckpointError):
        Bundle.load(tmp_path)


def test_the_share_of_gear_that_is_accepted_can_be_chosen(tmp_path):
    scores = {"plain": np.linspace(5, 9, 101), "pasted": np.linspace(0, 10, 101)}
    bundle = dataclasses.replace(
        make_bundle(),
        accept_from=1.0,
        gear_scores={kind: tuple(of.tolist()) for kind, of in scores.items()},
    )
    bundle.save(tmp_path / "model")
    found = Bundle.load(tmp_path)
    assert found.gear_scores == bundle.gear_scores
    assert found.accepted_shares() == pytest.approx({"plain": 1.0, "pasted": 0.9})
    assert found.accepting(0.4).accept_from == pytest.approx(6.0)
    assert found.accepting(1.0).accepted_shares() == pytest.approx({"plain": 1.0, "pasted": 1.0})
    assert found.accepting(0.4).accepted_shares()["plain"] == pytest.approx(0.75)
    with pytest.raises(UsageError, match="--backgrounds"):
        make_bundle().accepting(0.9)


@pytest.mark.parametrize("scores", [[1.0] * 5, [float("nan")] * 101, list(range(101, 0, -1)), "no"])
def test_scores_of_gear_that_are_none_are_refused(tmp_path, scores):
    make_bundle().save(tmp_path / "model")
    card = tmp_path / "model" / "bundle.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"gear_scores": {"pasted": scores}}))
    with pytest.raises(CheckpointError):
        Bundle.load(tmp_path)
