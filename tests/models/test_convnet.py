"""Layers do what their diagrams say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgear.errors import CheckpointError
from jaxgear.models.convnet import (
    Conv,
    ConvNet,
    Dense,
    Dropout,
    GlobalPool,
    Pool,
    Residual,
    SpaceToDepth,
)
from jaxgear.models.spec import from_spec

LAYERS = [SpaceToDepth(2), Conv(8), Pool(), Residual(), Dropout(0.5), GlobalPool(), Dense(5)]


def init(model, images):
    return model.init(jax.random.key(0), images, train=False)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_conv_pool_conv_pool_dense(images):
    model = ConvNet([Conv(4), Pool(), Conv(6), Pool(), Dense(7)], classes=12)
    variables = init(model, images)
    assert model.apply(variables, images, train=False).shape == (3, 12)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["layers_0"]["conv"]["kernel"] == (3, 3, 3, 4)
    assert shapes["layers_4"]["dense"]["kernel"] == (4 * 4 * 6, 7)
    assert shapes["head"]["kernel"] == (7, 12)


def test_bfloat16_computes_close_with_variables_and_logits_in_float32(images):
    """Each layer's kernel meets pictures in bfloat16, and the head in float32."""
    model = ConvNet([Conv(4), Dropout(0.5), GlobalPool(), Dense(5)], classes=4)
    half = model.clone(dtype="bfloat16")
    variables = init(half, images)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, init(model, images))

    def run(model):
        def mean(params):
            logits, changed = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.square(logits).mean(), (logits, changed)

        return jax.grad(mean, has_aux=True)(variables["params"])

    (grads, (logits, changed)), (_, (expected, _)) = run(half), run(model)
    types = {leaf.dtype for leaf in jax.tree.leaves((variables, grads, logits, changed))}
    assert types == {jnp.dtype("float32")}
    assert jnp.linalg.norm(logits - expected) < 0.05 * jnp.linalg.norm(expected)
    assert not np.array_equal(logits, expected)
    program = jax.jit(lambda: half.apply(variables, images, train=False)).trace()
    convolutions = [
        line
        for line in program.lower(lowering_platforms=("cuda",)).as_text().splitlines()
        if "stablehlo.convolution" in line
    ]
    assert [line.count("bf16>") for line in convolutions] == [3]


def test_normalises_bytes_and_floats_alike(images):
    model = ConvNet([Conv(4), GlobalPool()], classes=2)
    variables = init(model, images)
    of_bytes = model.apply(variables, images, train=False)
    of_floats = model.apply(variables, images.astype(np.float32), train=False)
    np.testing.assert_array_equal(of_bytes, of_floats)
    assert model.apply(
        variables, jnp.full((1, 16, 16, 3), 204.0), train=False, method="features"
    ).std() == pytest.approx(0, abs=1e-6)  # the mean colour becomes zero: every value alike


def test_pool_is_the_maximum_of_squares():
    x = jax.random.normal(jax.random.key(0), (2, 7, 9, 3))
    pooled = Pool(3).apply({}, x, False)
    expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 3, 3, 1), "VALID")
    np.testing.assert_array_equal(pooled, expected)


def test_space_to_depth_keeps_every_pixel_of_a_square_together():
    x = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)
    y = SpaceToDepth(2).apply({}, x, False)
    assert y.shape == (2, 2, 2, 12)
    np.testing.assert_array_equal(y[1, 0, 1], x[1, 0:2, 2:4].reshape(-1))


def test_residual_adds_its_input():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    variables = jax.tree.map(
        jnp.zeros_like, init_layer := Residual().init(jax.random.key(0), x, False)
    )
    np.testing.assert_array_equal(Residual().apply(variables, x, False), x)
    assert float(jnp.abs(Residual().apply(init_layer, x, False) - x).max()) > 0


def test_training_mode_drops_and_updates_statistics(images):
    model = ConvNet(LAYERS, classes=3)
    variables = init(model, images)
    apply = lambda key: model.apply(  # noqa: E731
        variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(key)},
    )
    one, changed = apply(1)
    assert not np.array_equal(one, apply(2)[0])
    np.testing.assert_array_equal(one, apply(1)[0])
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed)
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    evaluated = [model.apply(variables, images, train=False) for _ in range(2)]
    np.testing.assert_array_equal(*evaluated)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"module": "os.system", "command": "true"}, "os.system"),
        ({"module": "Conv", "features": 3, "name": "x"}, "name"),
        ({"features": 3}, "None"),
    ],
)
def test_the_network_of_an_older_bundle_is_one_of_ours(spec, word):
    with pytest.raises(CheckpointError, match=word):
        from_spec(spec)
