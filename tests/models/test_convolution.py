"""The fast weight gradient is XLA's gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxgear.models.cpu import convolution
from jaxgear.models.cpu import gradients as on_cpu


def gradients(convolve, x, kernel, g, **options):
    convolve = functools.partial(convolve, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)
    y, pull = jax.vjp(convolve, x, kernel)
    return y, *pull(jnp.resize(g, y.shape))


def assert_same(convolve, other, x, kernel, g, rtol, **options):
    ours = jax.jit(functools.partial(gradients, convolve, **options))(x, kernel, g)
    theirs = jax.jit(functools.partial(gradients, other, **options))(x, kernel, g)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(jnp.abs(b).max()) + 1e-30)


@settings(max_examples=24, deadline=None)
@given(
    n=st.integers(1, 6),
    side=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    window=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from(["SAME", "VALID", ((3, 3), (3, 3)), ((0, 2), (1, 0))]),
    groups=st.sampled_from([1, 1, 1, 2]),
    double=st.booleans(),
)
def test_gradients_equal_xla(n, side, channels, window, stride, padding, groups, double):
    named = {"SAME": (window - 1, window - 1), "VALID": (0, 0)}
    pads = named[padding] if isinstance(padding, str) else [sum(pad) for pad in padding]
    if any(s + p < window for s, p in zip(side, pads, strict=True)):
        return  # no output at all
    with jax.enable_x64(double):
        rng = np.random.default_rng(0)
        dtype = jnp.float64 if double else jnp.float32
        cin, cout = channels[0] * groups, channels[1] * groups
        x = jnp.asarray(rng.normal(size=(n, *side, cin)), dtype)
        kernel = jnp.asarray(rng.normal(size=(window, window, cin // groups, cout)), dtype)
        g = jnp.asarray(rng.normal(size=977), dtype)
        assert_same(
            convolution.conv_general_dilated,
            lax.conv_general_dilated,
            x,
            kernel,
            g,
            rtol=1e-12 if double else 1e-5,
            window_strides=(stride, stride),
            padding=padding,
            feature_group_count=groups,
        )


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_maps_under_many_channels(window, stride):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    assert_same(
        convolution.conv_general_dilated,
        lax.conv_general_dilated,
        draw(2, 4, 5, 96),
        draw(window, window, 96, 64),
        draw(977),
        1e-5,
        window_strides=(stride, stride),
        padding="SAME",
    )


@pytest.mark.parametrize("options", [{"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}])
def test_dilated_convolutions_are_left_to_xla(options):
    x, kernel = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4))
    assert_same(
        convolution.conv_general_dilated,
        lax.conv_general_dilated,
        x,
        kernel,
        jnp.arange(7.0),
        1e-5,
        window_strides=(1, 1),
        padding=((0, 0), (0, 0)),
        **options,
    )


def test_blocks_divide_the_batch_and_fit():
    assert on_cpu._block_size(50, on_cpu.BLOCK_BYTES // 4) == 2
    assert on_cpu._block_size(48, 1) == 48
    assert on_cpu._block_size(7, 10 * on_cpu.BLOCK_BYTES) == 1


def test_the_gradient_is_ours_on_cpu_and_xla_s_elsewhere():
    """Lowered for CPU the kernel's gradient is a loop of products; for CUDA there is no loop."""

    def loss(kernel, x):
        return convolution.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).sum()

    shapes = jax.ShapeDtypeStruct((3, 3, 8, 8), "f4"), jax.ShapeDtypeStruct((8, 64, 64, 8), "f4")
    traced = jax.jit(jax.grad(loss)).trace(*shapes)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_strides_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        convolution.conv_general_dilated(
            jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 2)), (0, 1), "SAME"
        )
