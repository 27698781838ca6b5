"""Makes a bundle of an untrained network quickly; its predictions mean nothing."""

import jax
import numpy as np
from exports import once
from flax import traverse_util

from jaxgear.bundle.bundle import Bundle
from jaxgear.data.splits.known import KnownPictures
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.models.grad_cam import map_program
from jaxgear.program import Program, flat
from jaxgear.program.apply import init

CLASSES = ("axes", "boots", "hardshell_jackets")
program_of, maps_of = once(Program.of), once(map_program)


def make_bundle(model=None, variables=None, size=16, classes=CLASSES, known=None, temperature=0.5):
    """`known`: sha256 (hex) -> split of the images in the bundle's data set."""
    model = model or ConvNet([Conv(4), GlobalPool()], classes=len(classes))
    if variables is None:
        images = np.zeros((1, size, size, 3), np.uint8)
        variables = random_variables(lambda: init(model, jax.random.key(0), images))
    return Bundle(
        program=program_of(model, variables, size),
        weights={name: np.asarray(leaf) for name, leaf in flat(variables).items()},
        maps=maps_of(model, variables, size),
        classes=classes,
        size=size,
        temperature=temperature,
        fingerprint="f" * 64,
        pictures=KnownPictures.of((known or {}).keys(), (known or {}).values()),
        versions={"jax": jax.__version__},
        about={"run": "scratch-20260101-120000", "epoch": 3, "val_accuracy": 0.9},
    )


def random_variables(init):
    """Random variables in the shapes of `init()`, without compiling it, which takes seconds."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1] == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(scale=(2 / fan_in) ** 0.5, size=leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1] in ("scale", "var"), np.float32)

    return traverse_util.path_aware_map(draw, jax.eval_shape(init))
