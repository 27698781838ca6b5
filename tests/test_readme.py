"""README's examples work as written."""

import ast
import functools
import re
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
from pictures import write_set
from small_bundle import make_bundle

from jaxgear.data.batches import Batches
from jaxgear.experiment.recipe import Data, Recipe
from jaxgear.training import steps

README = Path(__file__).parents[1] / "README.md"


def test_the_lines_for_a_notebook(tmp_path, monkeypatch):
    block = README.read_text().split("<!-- notebook -->\n```python\n")[1].split("```")[0]
    lines = ast.parse(block).body
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, {"new": 5})
    make_bundle().save(tmp_path / "RUN" / "model")
    shell = {}
    exec(compile(ast.Module(lines[:-1], []), str(README), "exec"), shell)
    figure = eval(compile(ast.Expression(lines[-1].value), str(README), "eval"), shell)
    assert len(figure.axes) == 5
    assert figure._repr_jpeg_().startswith(b"\xff\xd8")


def test_a_layer_and_an_optimizer_of_ones_own_train():
    """The blocks of "Change the network" and "Change the optimizer", in a recipe that learns."""
    blocks = README.read_text().split("### 4. Change the network")[1].split("```python\n")[1:3]
    names = {}
    exec("from jaxgear.models.convnet import *\nfrom jaxgear.training import optim", names)
    names |= {"nn": nn, "optax": optax, "data": Data((10, 6), batch_size=8)}
    for block in blocks:
        exec(block.split("```")[0], names)
    made = Recipe(model=names["model"], optimizer=names["optimizer"], rate=0.006, epochs=1)
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    state = steps.init_state(made.model, made.tx, images[:1], 0)
    batch = next(Batches(images, np.arange(16) % 2, 8).ordered())
    step = functools.partial(steps.train_step, classes=2, loss=made.loss)
    after, metrics, _ = jax.jit(step)(state, batch)
    assert np.isfinite(metrics.loss)
    layer = after.params["layers_3"]["Dense_0"]["kernel"]
    assert not np.array_equal(layer, state.params["layers_3"]["Dense_0"]["kernel"])


def test_the_table_of_scripts_names_each_of_them():
    folder = README.parent / "scripts"
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line[:1] == "|"]
    named = set(re.findall(r"`(\w+)`", "".join(rows))) - {"clean"}  # a command of jaxgear
    assert named == {file.stem for file in folder.glob("*.py")}
