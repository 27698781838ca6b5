"""What several devices compute is what one computes. test_devices.py runs this with eight."""

import re

import jax
import numpy as np
import optax
import pytest
import test_rounds as rounds

from jaxgear.data.augment.transforms import flip
from jaxgear.data.batches import Batches
from jaxgear.data.stream import Stream
from jaxgear.errors import DivergedError, UsageError
from jaxgear.machine import devices
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import compiled, loop, steps
from jaxgear.training.progress import Progress

K, N, SIDE = 4, 44, 8  # three batches of 16, the last with four of padding

rng = np.random.default_rng(0)
LABELS = rng.integers(0, K, N).astype(np.int32)
IMAGES = (rng.integers(0, 80, (N, SIDE, SIDE, 3)) + 40 * LABELS[:, None, None, None]).astype(
    np.uint8
)


def mesh(count):
    return jax.make_mesh(
        (count,),
        (devices.AXIS,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:count],
    )


def batches(count, kind=Batches, size=16):
    return kind(IMAGES, LABELS, size, seed=2, mesh=mesh(count))


def train(count, kind=Batches, tx=None, **options):
    """State and rows after two epochs on `count` devices."""
    model = ConvNet([Conv(16), GlobalPool()], classes=K)  # its normalisation sees the whole batch
    tx = tx or optax.sgd(0.05, momentum=0.9)
    state = steps.init_state(model, tx, IMAGES[:1], seed=0)
    epochs = list(
        loop.epochs(
            state,
            batches(count, kind),
            batches(count, kind),
            last=2,
            classes=K,
            loss=steps.smoothed_cross_entropy(0.1),
            augment=flip(),
            **{"schedule": lambda step: 0.05, "progress": Progress(quiet=True)} | options,
        )
    )
    return epochs[-1][0], [row for _, row in epochs]


def assert_same(found, expected, atol=2e-6):
    for a, b in zip(*(jax.tree.leaves(s.variables) for s in (found[0], expected[0])), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    for a, b in zip(found[1], expected[1], strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-5)
        assert (a.train_accuracy, a.val_accuracy) == (b.train_accuracy, b.val_accuracy)


@pytest.fixture(scope="module")
def one():
    return train(1)


@pytest.mark.parametrize("kind", [Batches, Stream])
@pytest.mark.parametrize("count", [2, 8])
def test_results_are_those_of_one_device(one, count, kind):
    found = train(count, kind)
    kernel = found[0].params["layers_0"]["conv"]["kernel"]
    assert len(kernel.sharding.device_set) == count
    assert kernel.is_fully_replicated
    assert_same(found, one)


def test_fsdp_splits_what_is_large_and_computes_the_same():
    wide = ConvNet([Conv(64), Conv(64), GlobalPool()], classes=K)

    def epoch(count, layout):
        state = steps.init_state(wide, optax.sgd(0.05, momentum=0.9), IMAGES[:1], seed=0)
        ((state, row),) = loop.epochs(
            state,
            batches(count),
            batches(count),
            last=1,
            schedule=lambda step: 0.05,
            progress=Progress(quiet=True),
            layout=layout,
            classes=K,
            loss=steps.smoothed_cross_entropy(0.1),
        )
        return state, [row]

    found = epoch(8, devices.fsdp)
    kernel = found[0].params["layers_1"]["conv"]["kernel"]
    momentum = jax.tree.leaves(found[0].opt_state)
    assert kernel.addressable_data(0).size == kernel.size // 8
    assert any(leaf.addressable_data(0).size == kernel.size // 8 for leaf in momentum)
    assert found[0].params["head"]["bias"].is_fully_replicated
    assert_same(found, epoch(1, devices.replicated))
    whole = devices.local(found[0])
    np.testing.assert_array_equal(whole.params["layers_1"]["conv"]["kernel"], kernel)
    assert len(whole.params["layers_1"]["conv"]["kernel"].sharding.device_set) == 1


def test_steps_in_one_program_are_shared_by_the_devices(one, monkeypatch):
    """Two steps and then one a program, on one device and on eight."""
    monkeypatch.setattr(compiled, "steps_a_program", lambda train: 2)
    found = train(8)
    assert len(found[0].params["layers_0"]["conv"]["kernel"].sharding.device_set) == 8
    assert_same(found, one)


def test_parts_of_a_batch_are_shared_by_the_devices():
    """Accumulation on eight devices is accumulation on one."""
    assert_same(train(8, microbatch=8), train(1, microbatch=8))


@pytest.mark.parametrize("kind", [Batches, Stream])
def test_each_device_has_its_rows(kind):
    split, whole = next(batches(8, kind).shuffled(1)), next(batches(1).shuffled(1))
    assert split.image.addressable_data(3).shape == (2, SIDE, SIDE, 3)
    assert split.epoch.is_fully_replicated
    for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_divergence_names_the_pictures_of_all_devices():
    with pytest.raises(DivergedError, match=r"(number \d+, ){15}number \d+$"):
        train(8, schedule=lambda step: 1e30, tx=optax.sgd(1e30))


def test_the_line_of_an_epoch_says_what_each_device_did(capsys):
    train(2, progress=Progress())
    assert re.search(r"images/s, \d+ per device$", capsys.readouterr().out.strip())


@pytest.mark.parametrize("kind", [Batches, Stream])
def test_a_batch_that_cannot_be_shared_is_refused(kind):
    with pytest.raises(UsageError, match="--batch-size 12: must be a multiple of the 8 devices"):
        batches(8, kind, size=12)
    with pytest.raises(UsageError, match="--microbatch 4: must be a multiple of the 8 devices"):
        train(8, microbatch=4)


def test_the_mean_of_a_batch_is_never_of_one_device_alone(one):
    """Statistics of batch normalisation: were they of two pictures each, they would differ."""
    model = ConvNet([Conv(16), GlobalPool()], classes=K)
    batch = next(batches(1).ordered())
    state = steps.init_state(model, optax.sgd(0.05), IMAGES[:1], seed=0)
    x = (np.asarray(batch.image, np.float32) - model.mean) / model.std
    kernel = state.params["layers_0"]["conv"]["kernel"]
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    split = next(batches(8).ordered())
    state = devices.place(state, mesh(8))
    after, *_ = jax.jit(
        lambda state, batch: steps.train_step(
            state, batch, classes=K, loss=steps.smoothed_cross_entropy(0.0)
        )
    )(state, split)
    np.testing.assert_allclose(
        after.model_state["batch_stats"]["layers_0"]["norm"]["mean"],
        0.1 * np.asarray(y).mean(axis=(0, 1, 2)),
        atol=1e-5,
    )


def test_runs_that_are_trained_as_one_program_share_the_devices():
    lanes = [rounds.lane(seed, rate=0.01 * (seed + 1)) for seed in range(4)]
    together = rounds.Rounds(lanes, rounds.Signals(), rounds.QUIET)
    for leaf in together._program._state:
        assert leaf.sharding.device_set == set(jax.devices()[:4])
    yielded, _ = rounds.driven(together, lanes)
    for lane, ours in zip(lanes, yielded, strict=True):
        rounds.assert_as_alone(ours, rounds.alone(lane))
