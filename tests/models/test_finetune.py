"""A head over a backbone: the same numbers from features and from pictures; frozen is frozen."""

import functools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from random_weights import clip_weights, pictures
from safetensors.numpy import save_file

from jaxgear.data.augment.paste import backgrounds
from jaxgear.data.augment.transforms import affine, flip
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import Split
from jaxgear.data.folder.read import Record
from jaxgear.errors import GearError, UsageError
from jaxgear.models import features
from jaxgear.models.finetune import FROZEN, FineTuned, Head, groups, stage_of, whole_variables
from jaxgear.models.pretrained.backbone import load_backbone
from jaxgear.training import steps

WEIGHTS = Path(__file__).parent / "golden" / "resnet18_width2.pth"
IMAGES = pictures(5, 32)
LABELS = np.arange(5, dtype=np.int32) % 3


def side(*order):
    """The pictures of those numbers, as a side of a set."""
    order = list(order) or list(range(5))
    records = tuple(Record(f"{i}.png", f"{i:064x}", 0, None, 32, 32, b"") for i in order)
    return Split(IMAGES[order], LABELS[order], records)


@pytest.fixture
def backbone():
    return load_backbone(WEIGHTS)


def network(backbone, train_from=FROZEN, compute="float32", **options):
    head = Head(3)
    variables = head.init(jax.random.key(0), np.zeros((1, 16), np.float32), train=False)
    kernel = jax.random.normal(jax.random.key(1), (16, 3))
    variables = {"params": {"dense": {**variables["params"]["dense"], "kernel": kernel}}}
    model = FineTuned.over(backbone, head, train_from=train_from, **options)
    model = model.clone(backbone=backbone.module.clone(dtype=compute))
    return head, variables, model, whole_variables(backbone, variables)


def trained(model, variables, labels, train_from, count=3):
    """The state after `count` steps with weight decay, which a mask alone would let through."""
    tx = optax.partition(
        {
            "frozen": optax.set_to_zero(),
            "backbone": optax.adamw(1e-3, weight_decay=0.1),
            "head": optax.adamw(1e-2, weight_decay=0.1),
        },
        lambda params: groups(params, train_from),
    )
    batch = next(Batches(IMAGES, labels, 5).ordered())
    state = steps.init_state(model, tx, IMAGES[:1], 0, variables=variables)
    loss = steps.smoothed_cross_entropy(0.1)
    step = jax.jit(functools.partial(steps.train_step, classes=3, loss=loss))
    for _ in range(count):
        state, _, _ = step(state, batch)
    return state


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("train_from", [FROZEN, 4, 2])
def test_frozen_is_bit_identical_and_the_rest_moves(backbone, train_from, batch_statistics):
    _, _, model, variables = network(backbone, train_from, batch_statistics=batch_statistics)
    state = trained(model, variables, LABELS, train_from)
    for name, after in (
        ("params", state.params),
        ("batch_stats", state.model_state["batch_stats"]),
    ):
        before = traverse_util.flatten_dict(variables[name])
        after = traverse_util.flatten_dict(after)
        assert before.keys() == after.keys()
        for path in before:
            same = np.array_equal(before[path], after[path])
            kept = name == "batch_stats" and not batch_statistics
            assert same == (kept or stage_of(path) < train_from), path


@pytest.mark.parametrize("train_from", [FROZEN, 4])
def test_attention_is_trained_with_the_last_stage(tmp_path, train_from):
    save_file(clip_weights(grid=1, embedding=16), tmp_path / "clip.safetensors")
    _, _, model, variables = network(load_backbone(tmp_path / "clip.safetensors"), train_from)
    state = trained(model, variables, LABELS, train_from, count=1)
    before = traverse_util.flatten_dict(variables["params"]["backbone"])
    after = traverse_util.flatten_dict(state.params["backbone"])
    moved = {
        path[0].split("_")[0] for path in before if not np.array_equal(before[path], after[path])
    }
    assert moved == (set() if train_from == FROZEN else {"layer4", "pool"})


def test_frozen_stages_keep_no_optimizer_slots(backbone):
    _, _, model, variables = network(backbone, 4)
    state = trained(model, variables, LABELS, 4, count=1)
    learning = sum(
        leaf.size
        for path, leaf in traverse_util.flatten_dict(variables["params"]).items()
        if stage_of(path) >= 4
    )
    slots = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert slots == 2 * learning  # Adam's two moments


def test_pictures_and_features_give_the_same_logits(backbone):
    head, head_variables, model, variables = network(backbone)
    stored = features.compute_features(backbone, side())[:, 0]
    np.testing.assert_allclose(
        model.apply(variables, IMAGES, train=False),
        head.apply(head_variables, stored, train=False),
        atol=1e-4,
    )


def test_mirrored_logits_are_the_mean_of_both_and_not_in_training(backbone):
    head, variables, model, whole = network(backbone)
    mirrored = model.clone(mirror=True)
    plain = functools.partial(model.apply, whole, train=False)
    mean = (plain(IMAGES) + plain(IMAGES[:, :, ::-1])) / 2
    assert np.abs(plain(IMAGES) - mean).max() > 1e-3
    np.testing.assert_allclose(mirrored.apply(whole, IMAGES, train=False), mean, atol=1e-5)
    # A mirrored side's features are its own, and those of the same pictures again.
    kept = [features.compute_features(backbone, one) for one in (side(), features.mirrored(side()))]
    logits = [head.apply(variables, one[:, 0], train=False) for one in kept]
    np.testing.assert_allclose(np.mean(logits, axis=0), mean, atol=1e-4)
    trained, plainly = (
        one.apply(whole, IMAGES, train=True, mutable=["batch_stats"])[0]
        for one in (mirrored, model)
    )
    np.testing.assert_array_equal(trained, plainly)


def test_head_is_indifferent_to_the_scale_of_features():
    head = Head(3)
    x = np.random.default_rng(0).uniform(1, 2, (4, 8)).astype(np.float32)
    variables = head.init(jax.random.key(0), x, train=False)
    variables = jax.tree.map(lambda p: jnp.ones_like(p), variables)
    one, other = (head.apply(variables, scale * x, train=False) for scale in (1, 100))
    np.testing.assert_allclose(one, other, rtol=1e-4)


# Features


def count_batches(monkeypatch):
    """How many batches went through a backbone."""
    calls = []
    real = features.Backbone.features

    def counting(self, images):
        if not isinstance(images, jax.core.Tracer):  # only asks for the shape
            calls.append(len(images))
        return real(self, images)

    monkeypatch.setattr(features.Backbone, "features", counting)
    return calls


def test_features_are_computed_once(backbone, monkeypatch):
    calls = count_batches(monkeypatch)
    compute = functools.partial(features.compute_features, backbone, augment=flip())
    first = compute(side(), views=3)
    assert first.shape == (5, 3, 16)
    assert calls == [features.BATCH]
    order = [3, 0, 4]
    again = compute(side(*order), views=2)
    np.testing.assert_array_equal(again, first[order][:, :2])
    assert len(calls) == 1
    np.testing.assert_array_equal(compute(side(), views=4)[:, :3], first)
    assert len(calls) == 2  # one more view each


def test_views_are_a_function_of_content(backbone, monkeypatch, tmp_path):
    """Without the cache, in another set and order: the same views."""
    compute = functools.partial(features.compute_features, backbone, views=4, augment=flip())
    first = compute(side())
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "another"))
    order = [4, 1]
    np.testing.assert_allclose(compute(side(*order)), first[order], atol=1e-6)
    plain = backbone.fold().features(IMAGES)
    np.testing.assert_allclose(first[:, 0], plain, atol=1e-5)
    assert not np.allclose(first[:, 1:], first[:, :1], atol=1e-3)  # some were mirrored


def test_a_bar_shows_what_is_computed_and_nothing_that_was_kept(backbone, monkeypatch, ticks):
    monkeypatch.setattr(features, "BATCH", 4)
    features.compute_features(backbone, side(0))
    assert ticks.pop("features") == [(1, 1)]
    features.compute_features(backbone, side(), 2, flip())
    assert ticks.pop("features") == [(5, 10), (9, 10), (10, 10)]
    features.compute_features(backbone, side(), 2, flip())
    assert not ticks


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap"])
def test_a_damaged_entry_is_computed_again(backbone, monkeypatch, own_cache, damage):
    first = features.compute_features(backbone, side())
    entries = sorted(p for p in (own_cache / "features").rglob("*.0"))
    content = bytearray(entries[0].read_bytes())
    if damage == "flip":
        content[50] ^= 1
    elif damage == "truncate":
        del content[-4:]
    else:  # another picture's entry under this name
        content = entries[1].read_bytes()
    entries[0].write_bytes(content)
    calls = count_batches(monkeypatch)
    np.testing.assert_allclose(features.compute_features(backbone, side()), first, atol=1e-6)
    assert len(calls) == 1


def test_another_augmentation_has_other_entries(backbone, monkeypatch):
    compute = functools.partial(features.compute_features, backbone, side(), 2)
    compute(augment=affine(rotate=10))
    calls = count_batches(monkeypatch)
    compute(augment=affine(rotate=10))
    assert calls == []
    compute(augment=affine(rotate=11))
    assert len(calls) == 1


def test_another_bank_of_backgrounds_has_other_entries(backbone, monkeypatch):
    """Arrays that an augmentation holds are part of the key, not only its program."""
    masked, channels = side(), [(0, 0)] * 3 + [(0, 1)]
    masked = replace(masked, images=np.pad(masked.images, channels, constant_values=255))
    dark, bright = (jnp.full((2, 48, 48, 3), level, jnp.uint8) for level in (40, 200))
    paste = lambda bank: backgrounds(bank, probability=1.0, clutter=0)  # noqa: E731
    first = features.compute_features(backbone, masked, 2, paste(dark))
    calls = count_batches(monkeypatch)
    np.testing.assert_array_equal(
        features.compute_features(backbone, masked, 2, paste(jnp.array(dark))), first
    )
    assert calls == []
    second = features.compute_features(backbone, masked, 2, paste(bright))
    assert len(calls) == 1
    np.testing.assert_array_equal(second[:, 0], first[:, 0])
    assert not np.allclose(second[:, 1], first[:, 1], atol=1e-3)


def test_works_without_a_cache(backbone, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "file"))
    assert features.compute_features(backbone, side()).shape == (5, 1, 16)


def gradient(model, variables, images=IMAGES):
    """Of the parameters, in a training step of all five pictures."""

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    return traverse_util.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]))


def test_no_gradient_goes_below_what_is_trained(backbone):
    """From stage 3 up it is the gradient of the whole network on the same statistics."""
    variables = network(backbone)[3]
    tuned, full = (
        jax.jit(functools.partial(gradient, network(backbone, first)[2])).lower(variables).compile()
        for first in (3, 0)
    )
    found = tuned(variables)
    assert not any(leaf.any() for path, leaf in found.items() if stage_of(path) < 3)
    assert all(leaf.any() for path, leaf in found.items() if stage_of(path) >= 3)
    assert tuned.cost_analysis()["flops"] < 0.7 * full.cost_analysis()["flops"]


@pytest.mark.parametrize("below", [1, 3, 4])
def test_trained_on_kept_maps_is_trained_on_the_images(backbone, below):
    """The same views: logits, gradients and the whole network are those of images, but for float16;
    the frozen stages get no gradient and stay as they were.
    """
    _, _, whole, variables = network(backbone, below)
    frozen = features.Frozen(backbone, views=3, augment=flip(), below=below)
    maps = frozen.train(side())
    assert maps.dtype == np.float16
    np.testing.assert_array_equal(frozen.plain(side()), maps[:, 0])
    upper, own = whole.clone(first=below), frozen.trained(variables)
    assert {stage_of(path) for path in traverse_util.flatten_dict(own["params"])} == {
        *range(below, FROZEN + 1)
    }
    same = functools.partial(np.testing.assert_allclose, rtol=2e-2, atol=2e-3)
    same(
        upper.apply(own, maps[:, 0], train=False),
        whole.apply(variables, IMAGES, train=False),
    )
    found, expected = gradient(upper, own, maps[:, 0]), gradient(whole, variables)
    assert found.keys() == {path for path in expected if stage_of(path) >= below}
    for path, leaf in found.items():
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(leaf, expected[path], atol=2e-2 * scale, err_msg=str(path))
    moved = jax.tree.map(lambda leaf: leaf + 1, own)
    after = traverse_util.flatten_dict(frozen.variables(moved))
    for path, leaf in traverse_util.flatten_dict(variables).items():
        kept = stage_of(path[1:]) < below
        np.testing.assert_array_equal(after.pop(path), leaf if kept else leaf + 1)
    assert not after


def test_views_that_do_not_fit_in_memory_are_one_line(backbone, monkeypatch):
    monkeypatch.setattr(features, "free_memory", lambda: 5 * 3 * (8 * 8 * 2) * 2 - 1)
    frozen = features.Frozen(backbone, views=3, augment=flip(), below=2)
    with pytest.raises(GearError, match=r"^features of 15 views of pictures take .* --views or "):
        frozen.train(side())
    assert frozen.plain(side()).shape == (5, 8, 8, 2)


def test_a_stage_that_is_none_is_refused(backbone):
    for below in (0, FROZEN + 1):
        with pytest.raises(UsageError, match=f"^below={below}: must be a stage from 1 to 5$"):
            features.Frozen(backbone, below=below)


def test_a_network_of_the_same_weights_that_strides_elsewhere_has_other_entries(
    backbone, monkeypatch
):
    """Only a folder's config.json tells where a ResNet of Hugging Face strides."""
    features.compute_features(backbone, side())
    calls = count_batches(monkeypatch)
    other = replace(backbone, module=backbone.module.clone(stride_in_1x1=True))
    features.compute_features(other, side())
    assert len(calls) == 1


@pytest.mark.parametrize("mirror", [False, True])
def test_a_head_names_images_as_the_whole_network_does(backbone, mirror):
    """Before it is part of it: pseudo-labels are those of the network."""
    head, variables, model, whole = network(backbone, mirror=mirror)
    frozen = features.Frozen(backbone, mirror=mirror)
    np.testing.assert_allclose(
        head.apply(variables, frozen.inputs(side()), train=False),
        model.apply(whole, IMAGES, train=False),
        atol=1e-4,
    )


@pytest.mark.slow
def test_fine_tuning_in_bfloat16_keeps_float32_and_lowers_for_gpus(backbone):
    """Close to float32; and the program for a GPU leaves convolutions to its own library."""
    _, _, model, variables = network(backbone, 1, compute="bfloat16", batch_statistics=True)
    exact = trained(network(backbone, 1, batch_statistics=True)[2], variables, LABELS, 1, count=1)
    half = trained(model, variables, LABELS, 1, count=1)
    for a, b in zip(
        jax.tree.leaves(half.model_state), jax.tree.leaves(exact.model_state), strict=True
    ):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0.1, atol=0.05)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.params))
    loss = steps.smoothed_cross_entropy(0.1)
    batch = next(Batches(IMAGES, LABELS, 5).ordered())
    step = functools.partial(steps.train_step, classes=3, loss=loss)
    lowered = jax.jit(step).trace(half, batch).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    assert "tensor<3x3x2x2xbf16>" in program
    assert "stablehlo.while" not in program  # the blocks of the gradient for CPUs
