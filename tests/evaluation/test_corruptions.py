"""Corruptions grow with severity, keep the shape, and repeat."""

import numpy as np
import pytest
from pictures import scene

from jaxgear.evaluation.robustness import corruptions


@pytest.fixture(scope="module")
def images():
    """Pictures on white, as catalogues have them."""
    made = np.full((6, 48, 48, 3), 255, np.uint8)
    for number in range(6):
        made[number, 10:38, 8:40] = scene(number, 28, 32)
    return made


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_each_severity_is_further_from_the_picture(images, name):
    distances = []
    for severity in corruptions.SEVERITIES:
        found = corruptions.corrupt(images, name, severity)
        assert found.dtype == np.uint8
        assert found.shape == images.shape
        np.testing.assert_array_equal(found, corruptions.corrupt(images, name, severity))
        distances.append(np.abs(found.astype(float) - images).mean())
    assert distances[0] > 0.5
    if name == "rotation":  # past a quarter pictures get more alike again
        distances = distances[:3]
    assert distances == sorted(distances)


def test_a_picture_does_not_depend_on_its_neighbours(images):
    whole = corruptions.corrupt(images, "noise", 2)
    np.testing.assert_array_equal(corruptions.corrupt(images[:2], "noise", 2), whole[:2])
    assert not np.array_equal(whole, corruptions.corrupt(images, "noise", 2, seed=1))


def test_turning_and_scaling_are_about_the_centre(images):
    turned = corruptions.turned(images[0], 90, 1)
    np.testing.assert_allclose(turned, np.rot90(images[0], -1), atol=2)
    small = corruptions.turned(np.zeros((48, 48, 3), np.uint8), 0, 0.5)
    assert small[13:35, 13:35].max() < 20
    assert small[:11].min() == 255
    assert (small == small[::-1, ::-1]).mean() > 0.97


def test_severities_are_five(images):
    with pytest.raises(ValueError, match="severity 6"):
        corruptions.corrupt(images, "blur", 6)
