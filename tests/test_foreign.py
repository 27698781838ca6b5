"""Any Flax network goes all the way: trained, resumed, tested, handed on, used without its code."""

import dataclasses
import json
import subprocess
import sys

import foreign
import jax
import numpy as np
import optax
import pytest

from jaxgear import experiment
from jaxgear.bundle.bundle import Bundle
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import open_dataset
from jaxgear.errors import UsageError
from jaxgear.evaluation import explain
from jaxgear.evaluation.plots import figures as plots
from jaxgear.evaluation.plots import learning_curves
from jaxgear.experiment.conclusion import HandedOn
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.recipe import Data, Recipe
from jaxgear.models.convnet import Dense
from jaxgear.prediction.predictor import Predictor
from jaxgear.program.apply import forward

CONFIG = experiment.Config(data="drawn:60", image_size=16, batch_size=8, epochs=2)
SMALLEST = {"model": foreign.Plain(12), "optimizer": optax.adam, "rate": 0.1, "epochs": 1}
pytestmark = pytest.mark.one_cache

# In a process that has the bundles and cannot import the networks or Flax.
USE = """
import json, sys
sys.modules["flax"] = sys.modules["foreign"] = None
from pathlib import Path
import numpy as np
from jaxgear.prediction import export
from jaxgear.bundle import Bundle
from jaxgear.prediction import Predictor
images = np.load(sys.argv[1])
for run in sys.argv[2:]:
    bundle = Bundle.load(run)
    np.save(Path(run) / "again.npy", Predictor(bundle, 4).logits(images))
    assert export.export(bundle)
"""


def recipe_of(network):
    def recipe(config, data):
        return Recipe(
            model=network(data.classes),
            optimizer=lambda rate: optax.sgd(rate, momentum=0.9),
            rate=0.01,
            epochs=config.epochs,
        )

    return recipe


def run(network, out, **changes):
    config = dataclasses.replace(CONFIG, out=str(out), **changes)
    with experiment.start(config, recipe_of(network)) as run:
        list(run.epochs())
        return run, run.finish()


QUICK = ("a layer between ours", "counter, key and noise", "attention", "NNX through the bridge")
REST = tuple(name for name in foreign.NETWORKS if name not in QUICK)


def hand_on(names, tmp_path_factory, cache):
    """Runs of some networks, each stopped after its first epoch and resumed; and what another
    process made of them.
    """
    folder, runs = tmp_path_factory.mktemp("foreign"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        # Figures take longer than training.
        patch.setattr(learning_curves, "curves", lambda *_: None)
        patch.setattr(plots, "png", lambda figure: b"")
        patch.setattr(plots, "confusion", lambda *_: None)
        patch.setattr(plots, "grid", lambda *_: None)
        patch.setattr(plots, "save", lambda figure, path: path.touch())
        dataset = open_dataset(CONFIG.data, size=16, seed=0, say=lambda line: None)
        images = dataset.split("val").images[:]
        np.save(folder / "images.npy", images)
        for number, name in enumerate(names):
            _, path = run(foreign.NETWORKS[name], folder / str(number), epochs=1)
            resumed = run(foreign.NETWORKS[name], folder / str(number), resume=str(path))[0]
            runs[name] = path, resumed, images
    done = subprocess.run(
        [sys.executable, "-c", USE, folder / "images.npy", *(path for path, *_ in runs.values())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return runs


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory, cache):
    return hand_on(QUICK, tmp_path_factory, cache)


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory, cache):
    return hand_on(REST, tmp_path_factory, cache)


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        *(("quick_runs", name) for name in QUICK),
        *(pytest.param("other_runs", name, marks=pytest.mark.slow) for name in REST),
    ],
)
def test_a_network_of_somebody_else_goes_all_the_way(runs, name, request):
    path, resumed, images = request.getfixturevalue(runs)[name]
    assert [row.epoch for row in resumed.rows] == [1, 2]
    found = json.loads((path / "test.json").read_text())
    best, _ = resumed.run.best(resumed.state)
    # What was trained, evaluated by Flax, is what the other process got from the bundle.
    expected = forward(resumed.recipe.model)(best, images, train=False)
    tolerance = 0.02 if name == "bfloat16" else 1e-5
    np.testing.assert_allclose(np.load(path / "again.npy"), expected, atol=tolerance)
    assert np.ptp(expected) > 1e-3
    bundle = Bundle.load(path)
    assert found["epoch"] == bundle.about["epoch"]
    maps = explain.heat_maps(bundle, images[:2])
    assert maps.shape == (2, 16, 16)
    assert maps.max() <= 1
    # By Grad-CAM where a convolution puts out a map, else by covering places.
    assert (bundle.maps is None) == (name in ("batch of a fixed size", "NNX through the bridge"))


def test_resuming_gives_the_state_of_a_run_that_was_not_stopped(quick_runs, tmp_path):
    """With a counter and a key among its variables."""
    _, resumed, _ = quick_runs["counter, key and noise"]
    straight, _ = run(foreign.Counting, tmp_path)
    for a, b in zip(jax.tree.leaves(resumed.state), jax.tree.leaves(straight.state), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    assert int(straight.state.model_state["counter"]["seen"]) == int(straight.state.step)


@pytest.mark.slow
def test_a_network_that_knows_its_batch_is_predicted_in_batches_of_that_size(other_runs):
    path, _, images = other_runs["batch of a fixed size"]
    predictor = Predictor(Bundle.load(path), batch_size=1)
    assert predictor.batch_size == 16
    np.testing.assert_allclose(predictor.logits(images[:3]), np.load(path / "again.npy")[:3])


class Pair(foreign.Plain):
    def __call__(self, x):
        return x.mean(axis=(1, 2)), 0


class Narrow(foreign.Plain):
    def __call__(self, x):
        return x.mean(axis=(1, 2))


class Wants(foreign.Plain):
    def __call__(self, x, mask):
        return x


class Prints(foreign.Plain):
    def __call__(self, x, train=False):
        if not train:
            jax.debug.print("{}", x.sum())
        return super().__call__(x)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Narrow, r"network Narrow: gives 3 logits, not 12"),
        (Pair, "network Pair"),
        (Wants, "network Wants: TypeError.*mask"),
        (Prints, "network Prints: cannot be exported"),
        (
            lambda classes: foreign.ConvNet([lambda x: x.reshape(3, 7)], classes),
            r"network ConvNet.*reshape.*test_foreign.py:\d+",
        ),
    ],
)
def test_what_cannot_go_all_the_way_is_said_before_the_first_step(network, words, tmp_path):
    with pytest.raises(UsageError, match=words) as error:
        run(network, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"loss": lambda logits, targets: logits.nothing}, "loss.*nothing"),
        (
            {"loss": lambda logits, targets: optax.softmax_cross_entropy(logits, targets).mean()},
            r"ValueError: the loss gives \[\], not \[8\], one value for each image$",
        ),
        (
            {"loss": lambda logits, targets: logits * targets},
            r"the loss gives \[8, 12\], not \[8\]",
        ),
        ({"augment": lambda keys, images: images @ keys}, "augmentation"),
        ({"augment": lambda keys, images: images[..., :1]}, "network Plain or loss in training"),
        ({"class_weights": np.ones(2, np.float32)}, r"class_weights: \[2\], not \[12\]"),
        (
            {"first": Recipe(**SMALLEST, class_weights=np.ones(3, np.float32))},
            r"class_weights: \[3\], not \[12\]",
        ),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"rate": -0.1}, "rate=-0.1: must be at least 0"),
        ({"outliers": 6.0}, "outliers=6.0: must be at least 0 and at most 1"),
        ({"average": 1.0}, "average=1.0: must be at least 0 and below 1"),
        ({"mix": lambda keys, images: images}, "mix"),
        ({"resize": [(0.5, 0.5), (0.5, 0.75)]}, r"resize=.*: .* the sum of shares below 1"),
        ({"resize": [(0.5, 2)]}, "resize=.*factors at most 1"),
        (
            {"resize": [(0.5, 0.5)], "model": foreign.ConvNet([Dense(4)], 12)},
            r"network ConvNet with images of 8 px \(resize\): .*kernel",
        ),
    ],
)
def test_a_part_that_fails_is_named(field, words, tmp_path):
    def recipe(config, data):
        return dataclasses.replace(recipe_of(foreign.Plain)(config, data), **field)

    config = dataclasses.replace(CONFIG, out=str(tmp_path))
    with (
        pytest.raises(UsageError, match=words),
        experiment.start(config, recipe) as run,
    ):
        list(run.epochs())
    assert not list(tmp_path.iterdir())  # no empty run


def test_a_file_of_ones_own_is_kept_when_a_part_fails(tmp_path):
    def recipe(config, data):
        return dataclasses.replace(recipe_of(foreign.Plain)(config, data), loss=lambda *_: 1 / 0)

    config = dataclasses.replace(CONFIG, out=str(tmp_path))
    run = experiment.start(config, recipe)
    (run.path / "notes.txt").write_text("a wild idea")
    with pytest.raises(UsageError, match="division"), run:
        list(run.epochs())
    assert (run.path / "notes.txt").read_text() == "a wild idea"


def test_a_recipe_that_is_not_returned_is_said(tmp_path):
    def recipe(config, data):
        recipe_of(foreign.Plain)(config, data)

    config = dataclasses.replace(CONFIG, out=str(tmp_path))
    with pytest.raises(UsageError, match="recipe: returns NoneType, not a Recipe"):
        experiment.start(config, recipe)


def test_a_network_or_an_optimizer_of_another_kind_is_named():
    """In another process, as types are checked in this one."""
    code = """
import optax
from flax import nnx
from jaxgear import ConvNet, Recipe
from jaxgear.errors import UsageError
for fields in ({"model": nnx.Linear(3, 12, rngs=nnx.Rngs(0))}, {"optimizer": optax.adam(0.1)}):
    try:
        Recipe(**{"model": ConvNet([], 12), "optimizer": optax.adam, **fields}, rate=1, epochs=1)
    except UsageError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    network, optimizer = run.stdout.splitlines()
    assert network.startswith("model=Linear: not a Flax Linen module")
    assert optimizer.startswith("optimizer: not a function of the rate")


def test_what_is_handed_on_needs_no_values_of_the_weights():
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    model = foreign.Plain(4)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    made = HandedOn(model, shapes, 16, 4)
    assert made.program.shapes["params/Dense_0/kernel"].shape == (8, 4)
    assert made.program.head == "params/Dense_0"


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("Gloo"), MemoryError(), OSError(28)])
def test_an_error_of_the_machine_is_not_looked_for_in_the_recipe(error):
    """Where another host is gone, there are moments left to say so."""
    recipe = recipe_of(foreign.Loops)(CONFIG, Data(counts=(1,) * 12, batch_size=8))
    recipe = dataclasses.replace(recipe, augment=lambda keys, images: 1 / 0)  # would be found
    batches = Batches(np.zeros((8, 16, 16, 3), np.uint8), np.zeros(8, np.int32), 8)
    with pytest.raises(type(error)), diagnosed(recipe, batches, 12):
        raise error
