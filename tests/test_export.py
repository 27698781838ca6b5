"""An exported model needs jax alone, and says what the bundle says."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.errors import GearError
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool, Pool, Residual, SpaceToDepth
from jaxgear.models.finetune import FineTuned, Head, whole_variables
from jaxgear.models.pretrained.backbone import load_backbone
from jaxgear.prediction import export
from jaxgear.prediction.predictor import Predictor

RESNET = Path(__file__).parent / "models/golden/resnet18_width2.pth"
CLASSES = ("axes", "boots", "Ü雪")
SIZE = 32

# In another process: neither flax nor jaxgear can be imported, and only the card is known.
LOAD = """
import json, sys
from pathlib import Path
for blocked in ("flax", "jaxgear", "optax", "orbax"):
    sys.modules[blocked] = None
import jax.export, numpy as np
for name in sys.argv[1:]:
    path = Path(name)
    card = json.loads(path.with_name(path.name + ".json").read_text())
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    images = np.load(path.with_suffix(".npy"))
    for n in (1, 7):
        np.save(path.with_suffix(f".{n}.npy"), jax.jit(program.call)(images[:n]))
    print(card["classes"], program.platforms)
"""


def bundle_of(model, variables=None):
    return make_bundle(model, variables, SIZE, CLASSES, temperature=1.7)


def with_threshold(bundle, images):
    """The bundle, which now takes three of the pictures for no gear."""
    scores = np.sort(bundle.score(Predictor(bundle, 4).logits(images)))
    return dataclasses.replace(bundle, accept_from=float(scores[2:4].mean()))


@pytest.fixture(scope="module")
def bundles():
    """A convolutional network with every layer that has its own gradient, and a ResNet."""
    layers = [SpaceToDepth(2), Conv(4), Pool(), Residual(), Conv(6, strides=2), GlobalPool()]
    rng = np.random.default_rng(0)
    dense = {"kernel": rng.normal(size=(16, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    backbone = load_backbone(RESNET)
    variables = whole_variables(backbone, {"params": {"dense": dense}})
    resnet = FineTuned.over(backbone, Head(3)), variables
    return {"convnet": bundle_of(ConvNet(layers, classes=3)), "resnet": bundle_of(*resnet)}


@pytest.fixture(scope="module")
def exported(bundles, tmp_path_factory):
    """Folder with both, and what the other process made of them."""
    folder = tmp_path_factory.mktemp("export Ü")
    images = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)
    files = []
    for name, bundle in bundles.items():
        bundle.save(folder / f"bundle-{name}")
        files.append(folder / f"{name}.shlo")
        np.save(files[-1].with_suffix(".npy"), images)
        with pytest.raises(SystemExit) as stop:
            cli.main(["export", str(folder / f"bundle-{name}"), str(files[-1])])
        assert stop.value.code == 0
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, files)], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return folder, images, done.stdout.splitlines()


@pytest.mark.parametrize("name", ["convnet", "resnet"])
@pytest.mark.parametrize("n", [1, 7])
def test_probabilities_are_those_of_the_bundle(exported, bundles, name, n):
    folder, images, _ = exported
    found = np.load(folder / f"{name}.{n}.npy")
    expected = Predictor(bundles[name], batch_size=4).probs(images[:n])
    assert np.ptp(expected) > 0.02  # not a comparison of constants
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_one_file_for_three_platforms_and_the_classes_in_order(exported):
    _, _, printed = exported
    assert printed == [f"{list(CLASSES)} ('cpu', 'cuda', 'tpu')"] * 2


def test_card_describes_the_artefact(exported):
    folder, _, _ = exported
    card = json.loads((folder / "convnet.shlo.json").read_text())
    assert card["sha256"] == hashlib.sha256((folder / "convnet.shlo").read_bytes()).hexdigest()
    assert card["preprocessing"]["size"] == SIZE
    assert (card["fingerprint"], card["temperature"]) == ("f" * 64, 1.7)
    assert len(card["load"]) == 5
    assert card["accept_from"] is None


def test_the_five_lines_of_the_card_run(exported, monkeypatch):
    folder, _, _ = exported
    monkeypatch.chdir(folder)
    names = {}
    exec("\n".join(json.loads(Path("convnet.shlo.json").read_text())["load"]), names)
    assert names["probs"].shape == (1, 3)


def test_the_card_tells_what_is_no_gear(exported, bundles, capsys, monkeypatch, tmp_path):
    """Its lines find the probabilities and scores of a bundle that can refuse."""
    _, images, _ = exported
    bundle = with_threshold(bundles["convnet"], images)
    artefact = export.export(bundle)
    (tmp_path / "refusing.shlo").write_bytes(artefact)
    card = export.card(bundle, artefact, "refusing.shlo")
    assert card["accept_from"] == bundle.accept_from
    monkeypatch.chdir(tmp_path)
    lines = [line for line in card["load"] if not line.startswith(("images =", "print(probs"))]
    names = {"images": images}
    exec("\n".join(lines), names)
    logits = Predictor(bundle, 4).logits(images)
    np.testing.assert_allclose(names["probs"], bundle.probs(logits), atol=1e-6)
    np.testing.assert_allclose(names["score"], bundle.score(logits), atol=1e-5)
    refused = [bundle.refuses(score) for score in bundle.score(logits)]
    assert sum(refused) == 3
    assert capsys.readouterr().out.strip() == str(np.array(refused))


class Talkative(nn.Module):
    """A network that calls back to Python."""

    @nn.compact
    def __call__(self, images, train):
        x = images.astype(np.float32).mean(axis=(1, 2))
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: x, shape, x)


def test_a_network_that_cannot_be_a_program_is_one_line():
    with pytest.raises(GearError, match="network Talkative: cannot be exported") as error:
        bundle_of(Talkative(), {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.TFLite", "model.pt", "model.json"])
def test_a_name_of_another_format_is_refused(tmp_path, capsys, name):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "no/run", str(tmp_path / name)])
    assert stop.value.code == 2
    assert "the export is StableHLO, not" in capsys.readouterr().err


def test_to_standard_output_goes_the_artefact_alone(bundles, tmp_path, capsysbinary):
    bundles["convnet"].save(tmp_path / "bundle")
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(tmp_path / "bundle"), "-"])
    assert stop.value.code == 0
    printed = capsysbinary.readouterr()
    assert jax.export.deserialize(bytearray(printed.out)).platforms == export.PLATFORMS
    assert printed.err.endswith(b"; no card\n")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_not_there_is_named_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "no/run", str(tmp_path / "no" / "x.shlo")])
    assert stop.value.code == 2
    assert "no folder" in capsys.readouterr().err
