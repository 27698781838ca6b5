"""A network as a program: the same numbers without its code, and nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgear.errors import CheckpointError, UsageError
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.program.apply import forward
from jaxgear.program.stablehlo import FIXED_BATCH, LIMIT, Program, deserialize
from jaxgear.program.variables import flat, structured

RNG = np.random.default_rng(0)


class Mean(nn.Module):
    """Logits that are known without a network: the mean of each channel, times a kernel."""

    @nn.compact
    def __call__(self, images, train):
        mean = images.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(4, name="head")(mean)


WEIGHTS = {
    "params/head/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "params/head/bias": np.float32([1, 2, 3, 4]),
}
VARIABLES = {"params": {"head": {"kernel": WEIGHTS["params/head/kernel"],
                                 "bias": WEIGHTS["params/head/bias"]}}}  # fmt: skip


def again(program: Program) -> Program:
    return Program.deserialize(program.serialize(), program.head)


@pytest.mark.parametrize("count", [1, 7])
def test_a_read_program_gives_the_logits_and_features_of_the_formula(count):
    program = again(Program.of(Mean(), VARIABLES, 8))
    assert (program.head, program.batch, program.classes) == ("params/head", None, 4)
    images = RNG.integers(0, 256, (count, 8, 8, 3), np.uint8)
    mean = images.astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(program.features(WEIGHTS, images), mean, rtol=1e-6)
    expected = mean @ WEIGHTS["params/head/kernel"] + WEIGHTS["params/head/bias"]
    np.testing.assert_allclose(program.logits(WEIGHTS, images), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 7])
def test_a_read_program_gives_the_logits_of_its_network(count):
    model = ConvNet([Conv(4), GlobalPool()], classes=3)
    images = RNG.integers(0, 256, (count, 8, 8, 3), np.uint8)
    variables = model.init(jax.random.key(0), images, train=False)
    program = again(Program.of(model, variables, 8))
    expected = forward(model)(variables, images, train=False)
    np.testing.assert_allclose(program.logits(flat(variables), images), expected, rtol=1e-5)


def test_shapes_are_enough_to_write_a_program():
    shapes = jax.eval_shape(lambda: VARIABLES)
    written = Program.of(Mean(), shapes, 8)
    assert {name: leaf.shape for name, leaf in written.shapes.items()} == {
        name: leaf.shape for name, leaf in WEIGHTS.items()
    }


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_structured_undoes_flat(kind):
    variables = {
        "params": {"a": jnp.arange(3, dtype=jnp.bfloat16), "b": {"c": np.float32([[1, 2]])}},
        "state": {"count": np.int32(7), "key": jax.random.key(5, impl=kind)},
        "keys": {"many": jax.random.split(jax.random.key(6, impl=kind), 4)},
    }
    weights = flat(variables)
    assert weights.keys() == {"params/a", "params/b/c", "state/count", "state/key", "keys/many"}
    assert weights["params/a"].dtype == jnp.bfloat16
    assert weights["state/key"].dtype == np.uint32
    assert weights["keys/many"].shape[0] == 4
    restored = structured(jax.eval_shape(lambda: variables))(weights)
    assert jax.tree.structure(restored) == jax.tree.structure(variables)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(variables), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_flat_of_shapes_is_the_shapes_of_flat():
    variables = {"a": {"key": jax.random.key(0), "x": jnp.zeros((2, 3), jnp.bfloat16)}}
    shapes = flat(jax.eval_shape(lambda: variables))
    assert {k: (x.shape, x.dtype) for k, x in shapes.items()} == {
        k: (x.shape, x.dtype) for k, x in flat(variables).items()
    }


def test_names_that_collide_are_refused():
    with pytest.raises(UsageError, match="same name"):
        flat({"a": {"b/c": np.zeros(1), "b": {"c": np.ones(1)}}})


class Calls(nn.Module):
    """Needs LAPACK, which is a custom call."""

    @nn.compact
    def __call__(self, images, train):
        matrix = images.reshape(len(images), -1)[:, :16].astype(jnp.float32)
        return nn.Dense(2)(jnp.linalg.qr(matrix.reshape(-1, 4, 4))[1].reshape(-1, 16))


class Prints(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        jax.debug.print("{x}", x=images[0, 0, 0, 0])
        return nn.Dense(2)(images.astype(jnp.float32).mean(axis=(1, 2)))


@pytest.mark.parametrize("network", [Calls, Prints])
def test_a_network_that_calls_outside_is_refused_by_name(network):
    model = network()
    images = np.zeros((1, 8, 8, 3), np.uint8)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    with pytest.raises(UsageError, match=f"network {network.__name__}: cannot be exported"):
        Program.of(model, variables, 8)


class Counts(nn.Module):
    """Needs to know how many images there are."""

    @nn.compact
    def __call__(self, images, train):
        share = jnp.arange(images.shape[0] // 4).sum() * 0
        rows = [image.astype(jnp.float32).mean(axis=(0, 1)) for image in images]
        return nn.Dense(2)(jnp.stack(rows)) + share


def test_a_network_that_counts_its_images_has_a_fixed_batch():
    model = Counts()
    images = RNG.integers(0, 256, (FIXED_BATCH, 4, 4, 3), np.uint8)
    variables = model.init(jax.random.key(0), images, train=False)
    program = again(Program.of(model, variables, 4))
    assert program.batch == FIXED_BATCH
    expected = model.apply(variables, images, train=False)
    np.testing.assert_allclose(program.logits(flat(variables), images), expected, rtol=1e-5)


def test_a_head_that_is_not_there_is_refused():
    program = Program.of(Mean(), VARIABLES, 8)
    with pytest.raises(CheckpointError, match="does not turn weights and images into logits"):
        Program.deserialize(program.serialize(), None)
    with pytest.raises(CheckpointError, match="no layer 'params/tail'"):
        Program.deserialize(program.serialize(), "params/tail")


def test_larger_files_than_programs_are_refused_unread():
    with pytest.raises(CheckpointError, match="at most 16,777,216 are read"):
        deserialize(bytes(LIMIT + 1))


def test_a_program_holds_no_path_of_the_machine_that_wrote_it():
    model = ConvNet([Conv(4), GlobalPool()], classes=3)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    variables = model.init(jax.random.key(0), images, train=False)
    data = Program.of(model, variables, 8).serialize()
    assert b".py" not in data
    assert data == Program.of(model.clone(), variables, 8).serialize()
