"""Proposals of crops: overlap by counting pixels, boxes inside the photograph, objects found."""

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_bundle import make_bundle

from jaxgear.data import crops
from jaxgear.models.finetune import FineTuned, Head
from jaxgear.models.pretrained import ResNet
from jaxgear.prediction import Predictor
from jaxgear.prediction.proposals import evidence as evidence_module
from jaxgear.prediction.proposals.boxes import distinct, found, iou
from jaxgear.prediction.proposals.evidence import FINE, evidence_of
from jaxgear.prediction.proposals.propose import propose

SIDE = 20  # boxes of the oracle lie on a grid of so many cells


def on_grid(corners):
    """Boxes with whole corners, at least a cell wide."""
    start = np.minimum(corners[:, :2], corners[:, 2:])
    return np.concatenate([start, np.maximum(corners[:, :2], corners[:, 2:]) + 1], axis=1) / SIDE


CORNERS = arrays(np.int64, st.tuples(st.integers(1, 8), st.just(4)), elements=st.integers(0, 19))


@given(CORNERS, CORNERS)
def test_iou_is_that_of_counted_cells(first, second):
    a, b = on_grid(first), on_grid(second)
    masks = []
    for boxes in (a, b):
        mask = np.zeros((len(boxes), SIDE, SIDE), bool)
        for row, (left, top, right, bottom) in enumerate((boxes * SIDE).round().astype(int)):
            mask[row, top:bottom, left:right] = True
        masks.append(mask)
    shared = (masks[0][:, None] & masks[1][None]).sum(axis=(2, 3))
    either = (masks[0][:, None] | masks[1][None]).sum(axis=(2, 3))
    np.testing.assert_allclose(iou(a, b), shared / either, atol=1e-9)


@given(CORNERS, st.randoms(use_true_random=False), st.floats(0.05, 0.95))
def test_distinct_boxes_overlap_little_and_stand_for_all(corners, rng, overlap):
    boxes = on_grid(corners)
    scores = np.array([rng.random() for _ in boxes])
    kept = distinct(boxes, scores, overlap, most=100)
    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) <= 0).all()
    among = iou(boxes[kept], boxes[kept]) - np.eye(len(kept))
    assert (among <= overlap).all()
    for lost in set(range(len(boxes))) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[lost]]
        assert (iou(boxes[lost : lost + 1], boxes[better]) > overlap).any()
    np.testing.assert_array_equal(distinct(boxes, scores, overlap, most=1), kept[:1])


def test_found_gives_the_first_rank():
    true = np.array([[0, 0, 0.5, 0.5], [0.8, 0.8, 1, 1]])
    proposed = np.array([[0.5, 0, 1, 0.5], [0, 0, 0.5, 0.4], [0, 0, 0.5, 0.5]])
    assert found(proposed, true).tolist() == [1, -1]
    assert found(proposed[:0], true).tolist() == [-1, -1]


@pytest.mark.parametrize("shape", [(120, 160), (160, 107), (160, 160), (3, 160), (160, 1)])
def test_proposals_lie_inside_and_are_the_same_again(shape):
    evidence = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
    boxes, scores = propose(evidence, 50)
    again, _ = propose(evidence.copy(), 50)
    np.testing.assert_array_equal(boxes, again)
    assert len(boxes) == len(scores) <= 50
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 1).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (np.diff(scores) <= 0).all()
    few, _ = propose(evidence, 5)
    np.testing.assert_array_equal(few, boxes[:5])


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.2, 0.35), (0.5, 0.4, 0.9, 0.9), (0.7, 0.0, 0.8, 0.1)])
def test_a_place_that_looks_like_a_class_is_proposed_first(box):
    evidence = np.random.default_rng(0).normal(scale=0.2, size=(120, 160, 3)).astype(np.float32)
    left, top, right, bottom = (np.array(box) * (160, 120, 160, 120)).astype(int)
    evidence[top:bottom, left:right, 1] += 2
    boxes, _ = propose(evidence, 10)
    assert found(boxes, np.array([box])).tolist() == [0]


def test_what_looks_the_same_everywhere_has_no_score():
    evidence = np.ones((120, 160, 2), np.float32) * (3, -1)
    _, scores = propose(evidence.astype(np.float32), 10)
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def red_bundle(size=16):
    """A network whose first class is red, the second the opposite."""
    bundle = make_bundle(size=size)
    weights = {name: np.zeros_like(leaf) for name, leaf in bundle.weights.items()}
    for name, leaf in weights.items():
        if name.endswith(("scale", "var")):
            leaf[:] = 1
        if name.endswith("conv/kernel"):
            leaf[1, 1, :, 0] = (4, -4, 0)  # [3, 3, RGB, 4]: the first map is how red a pixel is
        if name.endswith("head/kernel"):
            leaf[0] = (5, -5, 0)  # of its mean
    bundle.weights.update(weights)
    return bundle


def pasted(box, height=600, width=800, noise=30):
    """A red rectangle on a grey background with noise."""
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(128, noise, (height, width, 3)), 0, 255).astype(np.uint8)
    left, top, right, bottom = (np.array(box) * (width, height, width, height)).astype(int)
    image[top:bottom, left:right] = (250, 10, 20)
    return image


@pytest.mark.parametrize("noise", [0, 30])
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.25, 0.4), (0.5, 0.3, 0.9, 0.9)])
def test_windows_find_an_object(box, noise):
    evidence = evidence_of(Predictor(red_bundle()))(pasted(box, noise=noise))
    assert evidence.shape == (120, FINE, 3)
    boxes, _ = propose(evidence, 10)
    assert found(boxes, np.array([box])).tolist() != [-1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (40, 30)])
def test_odd_photographs_have_evidence(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    evidence = evidence_of(Predictor(red_bundle()))(image)
    assert max(evidence.shape[:2]) == FINE
    assert np.isfinite(evidence).all()


def resnet_bundle(**changes):
    backbone = ResNet(depth=18, width=4, conv_bias=True, **changes)
    model = FineTuned(
        backbone, Head(3), "BGR", 0.5, (100.0, 110.0, 120.0), (60.0, 60.0, 60.0), mirror=True
    )
    bundle = make_bundle(model, size=32)
    return dataclasses.replace(bundle, network=repr(model))


def test_a_resnet_is_run_on_the_whole_photograph(monkeypatch):
    bundle = resnet_bundle()
    monkeypatch.setattr(evidence_module, "_by_windows", None)
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    evidence = evidence_of(Predictor(bundle))(image)
    assert evidence.shape == (90, 160, 3)
    # Cells of one colour: the logits of a picture of that colour, away from the borders.
    plain = np.full((160, 160, 3), (200, 60, 30), np.uint8)
    evidence = evidence_of(Predictor(bundle))(plain)
    middle = evidence[70:90, 70:90]
    assert np.ptp(middle, axis=(0, 1)).max() < 1e-3


def test_a_resnet_that_its_description_does_not_fit_classifies_windows(monkeypatch):
    bundle = resnet_bundle(epsilon=0.1)
    other = bundle.network.replace("epsilon = 0.1", "epsilon = 3.0")
    assert other != bundle.network
    monkeypatch.setattr(evidence_module, "_by_windows", lambda predictor, image: "windows")
    changed = dataclasses.replace(bundle, network=other)
    image = np.zeros((20, 20, 3), np.uint8)
    assert evidence_of(Predictor(changed))(image) == "windows"
    assert not isinstance(evidence_of(Predictor(bundle))(image), str)


def test_a_resnet_with_attention_classifies_windows(monkeypatch):
    bundle = resnet_bundle(grid=1, embedding=8)
    monkeypatch.setattr(evidence_module, "_by_windows", lambda predictor, image: "windows")
    assert evidence_of(Predictor(bundle))(np.zeros((20, 20, 3), np.uint8)) == "windows"


def test_a_photograph_pasted_with_an_object_is_cropped(tmp_path):
    from jaxgear.prediction.proposals.cropping import predict_crops

    box = (0.1, 0.2, 0.25, 0.4)
    PIL.Image.fromarray(pasted(box)).save(tmp_path / "a.png")
    (cropped,) = predict_crops(red_bundle(), [tmp_path / "a.png"], 10)
    assert cropped.photograph.refused
    assert cropped.gear[0].path.startswith(f"{tmp_path / 'a.png'}#0.")
    assert cropped.gear[0].name(("red", "green", "blue")) == "red"


def test_a_crop_is_not_cropped_again(tmp_path):
    from jaxgear.prediction.proposals.cropping import predict_crops

    PIL.Image.fromarray(pasted((0.1, 0.2, 0.25, 0.4))).save(tmp_path / "a.png")
    crop = crops.address(str(tmp_path / "a.png"), (0.0, 0.0, 0.5, 0.5))
    (cropped,) = predict_crops(red_bundle(), [Path(crop)], 10)
    assert cropped.photograph.error == "a crop; name its photograph"
    assert not cropped.gear


def test_a_network_whose_head_is_an_array_classifies_windows():
    predictor = Predictor(red_bundle())
    predictor.bundle = dataclasses.replace(
        predictor.bundle, weights={"params/head": np.zeros(3, np.float32)}
    )
    assert evidence_module._dense(predictor) is None
