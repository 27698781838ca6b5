"""Maps of networks whose answer is known, and of those whose map can be worked out otherwise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_bundle import make_bundle, random_variables

from jaxgear.errors import CheckpointError
from jaxgear.evaluation import explain
from jaxgear.models import grad_cam
from jaxgear.models.convnet import Conv, ConvNet, Dense, Dropout, GlobalPool, Pool, Residual
from jaxgear.models.finetune import FineTuned, Head
from jaxgear.models.pretrained.resnet import Preprocess, ResNet
from jaxgear.prediction.predictor import Predictor
from jaxgear.program.apply import init, mode

SIZE = 32


def variables_of(model, size=SIZE):
    images = np.zeros((1, size, size, 3), np.uint8)
    return random_variables(lambda: init(model, jax.random.key(0), images))


def bundle_of(model, variables=None, size=SIZE):
    return make_bundle(model, variables, size, tuple(map(str, range(model.classes))))


def colour_bundle(pool, against=False):
    """Two channels, the red and the blue of each pixel; class 0 is red on average, class 1 blue."""
    model = ConvNet([Conv(2, kernel=1), *pool], classes=2, mean=0.0, std=255.0)
    variables = variables_of(model)
    params = jax.tree.map(np.zeros_like, dict(variables["params"]))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 2, 1] = 1
    params["layers_0"] = {
        "conv": {"kernel": kernel},
        "norm": {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)},
    }
    params["head"]["kernel"] = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], np.float32)
    if against:
        params["head"]["kernel"] = -np.eye(4, 2, dtype=np.float32)
    return bundle_of(model, {**variables, "params": params})


def corners():
    """Black, with a red square at the top left and a larger blue one at the bottom right."""
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    image[0, 2:10, 2:10, 0] = 255
    image[0, 16:30, 16:30, 2] = 255
    return image


def test_shows_the_square_of_the_colour_that_is_asked_for():
    image, bundle = corners(), colour_bundle([GlobalPool()])
    for label, channel in ((0, 0), (1, 2)):
        (heat,) = explain.heat_maps(bundle, image, np.array([label]))
        # The convolution keeps each pixel, so the map is the channel itself.
        np.testing.assert_allclose(heat, image[0, ..., channel] / 255, atol=1e-5)
    (predicted,) = explain.heat_maps(bundle, image)
    np.testing.assert_array_equal(
        predicted, explain.heat_maps(bundle, image, np.array([1]))[0]
    )  # more of it is blue


def test_what_speaks_against_a_class_is_not_shown():
    against = colour_bundle([GlobalPool()], against=True)
    assert explain.heat_maps(against, corners()).max() == 0


def test_number_of_pictures_does_not_matter_and_compiles_once(caplog):
    bundle = bundle_of(ConvNet([Conv(4), Pool(), Residual(), GlobalPool()], classes=3))
    images = np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE, 3), np.uint8)
    with jax.log_compiles():
        together = explain.heat_maps(bundle, images)
        explain.heat_maps(bundle, images[:3])
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    assert len([line for line in compiled if "(maps)" in line]) == 1, compiled
    assert together.shape == (11, SIZE, SIZE)
    assert together.dtype == np.float32
    one_by_one = np.concatenate(
        [explain.heat_maps(bundle, images[i : i + 1], batch_size=1) for i in range(11)]
    )
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    assert explain.heat_maps(bundle, images[:0]).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize(
    ("layers", "last"),
    [
        ([Conv(4), Residual(), Pool(), Dense(5), Dropout(0.5)], "layers_1"),
        ([Conv(4), Pool(), Conv(4, strides=2), GlobalPool()], "layers_2"),
    ],
)
def test_last_convolution_is_found_and_its_gradient_is_right(layers, last):
    """Against the same network cut in two by hand."""
    model = ConvNet(layers, classes=3)
    variables = variables_of(model)
    bundle = bundle_of(model, variables)
    assert grad_cam._last_convolution(model, variables, SIZE) == ((last,), 1)
    images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    cut = int(last[-1]) + 1

    def lower(module, x):
        x = (jnp.asarray(x, jnp.float32) - module.mean) / module.std
        for layer in module.layers[:cut]:
            x = layer(x, **mode(layer, False))
        return x

    def upper(module, x):
        for layer in module.layers[cut:]:
            x = layer(x, **mode(layer, False))
        return module.head(x.reshape(len(x), -1))

    maps = model.apply(variables, images, method=lower)
    for label in range(3):
        gradient = jax.grad(
            lambda x, label=label: model.apply(variables, x, method=upper)[:, label].sum()
        )(maps)
        check(bundle, images, label, maps, gradient)


@pytest.mark.parametrize("mirror", [False, True])
def test_resnet_is_explained_at_its_last_stage(mirror):
    like = Preprocess("BGR", 0.5, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    model = FineTuned(
        ResNet(depth=18, width=4),
        Head(3),
        *(like.order, like.scale, like.mean, like.std),
        mirror=mirror,
    )
    variables = variables_of(model, 64)
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(32, 3)).astype(np.float32)
    head = {"dense": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}
    variables["params"]["head"] = head
    bundle = make_bundle(model, variables, size=64)
    below = {name: tree["backbone"] for name, tree in variables.items()}
    images = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    stages = jax.jit(lambda x: model.backbone.apply(below, like(x), method="stages"))
    maps = stages(images)
    for label in range(3):
        gradient = jax.grad(
            lambda x, label=label: model.head.apply(
                {"params": head}, x.mean(axis=(1, 2)), train=False
            )[:, label].sum()
        )(maps)
        check(bundle, images, label, maps, gradient)


def check(bundle, images, label, maps, gradient):
    heat = np.maximum((np.mean(gradient, axis=(1, 2), keepdims=True) * maps).sum(-1), 0)
    heat = jax.image.resize(heat, images.shape[:3], "bilinear")
    expected = heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)
    found = explain.heat_maps(bundle, images, np.full(len(images), label))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_network_without_convolutions_is_explained_by_what_covering_a_place_takes():
    """Class 0 sums the red of the image, so that all of the red square speaks for it."""
    model = ConvNet([lambda x: x], classes=2, mean=0.0, std=255.0)
    kernel = np.zeros((SIZE, SIZE, 3, 2), np.float32)
    kernel[..., 0, 0] = kernel[..., 2, 1] = 1
    params = {"head": {"kernel": kernel.reshape(-1, 2), "bias": np.zeros(2, np.float32)}}
    bundle = bundle_of(model, {"params": params})
    assert bundle.maps is None
    for label, inside, outside in ((0, (5, 5), (22, 22)), (1, (22, 22), (5, 5))):
        (heat,) = explain.heat_maps(bundle, corners(), np.array([label]))
        assert heat[inside] > 0.4
        assert heat[outside] == 0
        assert heat.max() == pytest.approx(1)


def test_overlay_leaves_the_picture_where_the_map_is_zero_and_is_red_where_it_is_one():
    image = np.full((2, 2, 3), 128, np.uint8)
    shown = explain.overlay(image, np.array([[0.0, 1.0], [0.5, 0.2]], np.float32))
    np.testing.assert_array_equal(shown[0, 0], image[0, 0])
    red, green, blue = shown[0, 1].astype(int)
    assert red > 128 > max(green, blue)
    assert shown.dtype == np.uint8


def test_programs_of_another_network_are_refused_in_one_line():
    """What a bundle's program takes is known when it runs: other weights, or no weights at all."""
    few = bundle_of(ConvNet([Conv(2), GlobalPool()], classes=2))
    many = bundle_of(ConvNet([Conv(3), GlobalPool()], classes=2))
    images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(CheckpointError, match="program of maps cannot run") as error:
        explain.heat_maps(dataclasses.replace(few, maps=many.maps), images)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(CheckpointError, match="model's program cannot run"):
        Predictor(dataclasses.replace(few, weights=many.weights), 1)
