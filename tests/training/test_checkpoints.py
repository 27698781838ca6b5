"""Newest and best are kept by separate rules; what is restored is what was saved, or an error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgear.errors import CheckpointError
from jaxgear.machine import devices
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import steps
from jaxgear.training.history import Row
from jaxgear.training.runs.checkpoints import Checkpoints

IMAGES = np.zeros((1, 8, 8, 3), np.uint8)


def make_state(width=4, seed=0, tx=None, average=True, classes=3):
    model = ConvNet([Conv(width), GlobalPool()], classes=classes)
    return steps.init_state(model, tx or optax.adam(1e-3), IMAGES, seed, average)


def row(epoch, val_loss):
    return Row(epoch, epoch * 10, 1.0, val_loss, 0.5, 0.5, 1e-3, 1.0)


def leaves(state):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "check points Ü雪"


def saved(folder, losses=(1.0,), state=None):
    with Checkpoints(folder, keep_best=2) as checkpoints:
        for epoch, loss in enumerate(losses, 1):
            checkpoints.save(state or make_state(), epoch, loss)


def test_a_restored_twin_is_equal(folder):
    state = make_state(seed=1).replace(step=jnp.asarray(7, jnp.int32))
    saved(folder, state=state)
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(make_state(seed=2), 1)
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(state.opt_state)
    for a, b in zip(leaves(state), leaves(restored), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([0.9, 0.3, 0.1, 0.8, 0.2], [3, 4, 5]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 4, 5]),  # worsens every epoch: best and newest differ
        ([0.5, 0.4, 0.3, 0.2, 0.1], [4, 5]),
    ],
)
def test_newest_and_best_are_kept(folder, losses, kept):
    saved(folder, losses)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.epochs == kept


def test_larger_images_are_better_than_smaller_ones(folder):
    """As `history.best` takes them."""
    with Checkpoints(folder, keep_best=2, keep_latest=1) as checkpoints:
        for epoch, (loss, size) in enumerate([(0.1, 64), (0.9, 128), (0.8, 128), (1.0, 128)], 1):
            checkpoints.save(make_state(), epoch, loss, size)
        assert checkpoints.epochs == [2, 3, 4]


def test_an_epoch_is_never_saved_twice(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(make_state(), 1, 1.0)
        with pytest.raises(CheckpointError, match="epoch 1"):
            checkpoints.save(make_state(), 1, 1.0)


def data_file(folder):
    files = (p for p in folder.rglob("d/*") if p.is_file())  # where OCDBT keeps values
    return max(files, key=lambda p: p.stat().st_size)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.unlink(),
    ],
    ids=["flipped", "truncated", "deleted"],
)
def test_damage_is_named(folder, damage):
    saved(folder)
    path = data_file(folder)
    damage(path)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match=path.name),
    ):
        checkpoints.restore(make_state(), 1)


@pytest.mark.parametrize(
    ("other", "leaf"),
    [
        (lambda: make_state(width=5), "layers_0"),
        (lambda: make_state(tx=optax.sgd(0.1)), "opt_state"),
        (lambda: make_state(average=False), "average"),
        (lambda: make_state(classes=4), r"head\.bias: float32\[3\] saved, float32\[4\] needed"),
        (lambda: jax.tree.map(halve, make_state()), "float32.* saved, bfloat16"),
    ],
    ids=["width", "optimizer", "average", "classes", "dtype"],
)
def test_what_does_not_fit_is_refused_by_leaf(folder, other, leaf):
    saved(folder)
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match=leaf):
        checkpoints.restore(other(), 1)


def halve(leaf):
    return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf


def test_what_was_saved_is_whole_whatever_comes_after(folder):
    """An exception right after a save is the caller's; the epoch is there, and nothing half."""
    with pytest.raises(ZeroDivisionError), Checkpoints(folder) as checkpoints:  # noqa: PT012
        checkpoints.save(make_state(), 1, 1.0)
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == ["000001"]
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.epochs == [1]
        checkpoints.restore(make_state(seed=1), 1)


@pytest.mark.parametrize(
    "sign",
    [
        # As Orbax reports a full disk.
        ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"),
        # An OSError as well.
        TimeoutError("Timeout waiting at barrier 'save'. The original error was: UNAVAILABLE"),
    ],
)
def test_a_host_that_dies_during_a_save_is_not_taken_for_a_full_disk(folder, monkeypatch, sign):
    def gone(number):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        raise sign

    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(devices, "highest", gone)
        with pytest.raises(type(sign), match=str(sign)):
            checkpoints.save(make_state(), 1, 1.0)
        monkeypatch.undo()


def test_a_missing_epoch_is_an_error(folder):
    saved(folder)
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="000009"):
        checkpoints.restore(make_state(), 9)
