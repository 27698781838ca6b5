"""Evidence of gear: in the logits, not in the probabilities, and the discriminant of an oracle."""

import dataclasses

import flax.linen as nn
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from small_bundle import make_bundle

from jaxgear.data.dataset import Split, subsample
from jaxgear.data.folder.read import Record
from jaxgear.evaluation.no_gear import evidence
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.models.finetune import FineTuned, Head
from jaxgear.models.pretrained.resnet import ResNet
from jaxgear.models.reference import ReferenceCNN
from jaxgear.prediction.predictor import Predictor

RESNET = FineTuned(
    ResNet(depth=18, width=4), Head(3), "RGB", 1 / 255, (0.5,) * 3, (0.2,) * 3, mirror=True
)
NETWORKS = {
    "convnet": (ConvNet([Conv(8), GlobalPool()], classes=3), "params/head"),
    "reference": (ReferenceCNN(3), "params/Dense_0"),
    "resnet": (RESNET, "params/head/dense"),
}


def split(count, seed, bright):
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
    images[:, 8:24, 8:24, 0] = bright
    records = tuple(Record(f"{i}.png", f"{i:064x}", 0, None, 32, 32, b"") for i in range(count))
    return Split(images, np.zeros(count, np.int32), records)


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_stay_and_what_logits_share_tells_gear(name):
    model, head = NETWORKS[name]
    bundle = make_bundle(model, size=32)
    if name == "resnet":  # its head starts at zero
        kernel = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
        bundle = dataclasses.replace(bundle, weights=bundle.weights | {f"{head}/kernel": kernel})
    assert bundle.program.head == head
    features = evidence.features_of(bundle.program, bundle.weights)
    gear, other, held_out, new = (
        split(*a) for a in ((70, 0, 20), (40, 1, 240), (20, 2, 20), (30, 3, 240))
    )
    weights = evidence.with_evidence(
        bundle.weights, head, *(features(one.images) for one in (gear, other, held_out))
    )
    changed = dataclasses.replace(bundle, weights=weights)
    logits, before = (Predictor(b).logits(held_out.images) for b in (changed, bundle))
    assert np.abs(logits.mean(axis=1) - before.mean(axis=1)).max() > 1e-3
    np.testing.assert_allclose(changed.probs(logits), bundle.probs(before), atol=1e-4)
    np.testing.assert_allclose(
        evidence.logits_of(weights, head, features(held_out.images)), logits, atol=1e-3
    )
    shared = [logits, Predictor(changed).logits(new.images)]
    scores = [one.mean(axis=1) for one in shared]
    assert roc_auc_score([1] * 20 + [0] * 30, np.concatenate(scores)) > 0.9
    np.testing.assert_array_equal(changed.score(logits), logits.max(axis=1))


def test_the_direction_is_that_of_ridge_regression():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(6, 6))
    gear, other, held_out = (
        rng.normal(size=(n, 6)) @ mixed + at for n, at in ((90, 1), (40, 0), (30, 1))
    )
    weights = {"params/head/kernel": np.eye(6, 3), "params/head/bias": np.arange(3.0)}
    found = evidence.with_evidence(weights, "params/head", gear, other, held_out, 0.5)

    known = np.concatenate([gear, other])
    weight = np.repeat([0.5 / 90, 0.5 / 40], [90, 40])
    mean = weight @ known
    scale = np.sqrt(weight @ (known - mean) ** 2)
    oracle = Ridge(alpha=evidence.SHRINK, fit_intercept=False)
    oracle.fit((known - mean) / scale, np.repeat([1, -1], [90, 40]), sample_weight=weight)
    shared = found["params/head/kernel"].mean(axis=1)
    expected = oracle.coef_ / scale
    np.testing.assert_allclose(
        shared / np.linalg.norm(shared), expected / np.linalg.norm(expected), atol=1e-5
    )
    # On what is held out it varies half as much as the largest logit did.
    centred = held_out @ (np.eye(6, 3) - np.eye(6, 3).mean(axis=1, keepdims=True))
    largest = (centred + np.arange(3) - 1).max(axis=1)
    assert (held_out @ shared).std() == pytest.approx(largest.std() / 2, rel=1e-5)


class Scaled(nn.Module):
    """Its last dense layer does not put out the logits."""

    @nn.compact
    def __call__(self, images, train):
        return 2 * nn.Dense(3)(images.mean(axis=(1, 2)))


def test_other_outputs_are_left_alone():
    assert make_bundle(Scaled(), size=8).program.head is None


def test_some_pictures_of_a_split():
    whole = split(10, 0, 0)
    few = subsample(whole, 4)
    assert [record.path for record in few.records] == ["0.png", "3.png", "6.png", "9.png"]
    np.testing.assert_array_equal(few.images, whole.images[[0, 3, 6, 9]])
    assert len(subsample(whole, 20).labels) == 10
