"""Around an experiment's own expressions: what is kept when training ends badly or early."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made_runs import row, untrained

from jaxgear import experiment
from jaxgear.conclusion import conclude
from jaxgear.data.dataset import open_dataset
from jaxgear.errors import DivergedError
from jaxgear.evaluation import plots
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import history, loop, steps
from jaxgear.training.progress import Progress
from jaxgear.training.runs import Run

CONFIG = experiment.Config(data="drawn:60", image_size=16, batch_size=8, epochs=5)


@pytest.fixture
def dataset():
    return open_dataset(CONFIG.data, size=16, seed=0, say=lambda line: None)


def follow(dataset, out, tx, patience=5, epochs=5):
    """Trains in a new run folder, and gives it with the state (None: it ended with an error)."""
    train, val = experiment.picture_batches(CONFIG, dataset)
    model = ConvNet([Conv(4), GlobalPool()], classes=len(dataset.classes))
    state = steps.init_state(model, tx, train.images[:1], 0)
    with Run.create(out, "tiny", {"epochs": epochs}, dataset, __file__) as run:
        rows = loop.epochs(
            state,
            train,
            val,
            last=epochs,
            schedule=lambda step: 0.1,
            progress=Progress(quiet=True),
            classes=len(dataset.classes),
            loss=steps.smoothed_cross_entropy(0.0),
        )
        state = experiment.follow(run, state, rows, patience)
        return run, run.checkpoints.epochs, run.best(state)


def test_divergence_names_files_and_leaves_what_was_good(dataset, tmp_path):
    """The rate explodes in the third epoch: two are on disk, whole and finite, and no third."""
    steps_an_epoch = -(-dataset.counts()["train"] // 8)
    rate = lambda step: jnp.where(step < 2 * steps_an_epoch + 2, 0.01, 1e30)  # noqa: E731
    with pytest.raises(DivergedError) as diverged:
        follow(dataset, tmp_path, optax.sgd(rate))
    (folder,) = tmp_path.iterdir()
    message = str(diverged.value)
    assert f"step {2 * steps_an_epoch + 4} (epoch 3)" in message
    named = message.rpartition("of that batch: ")[2].split(", ")
    assert set(named) <= set(dataset.side("train").names)
    assert len(named) == 8
    rows = history.from_csv((folder / "history.csv").read_text())
    assert [row.epoch for row in rows] == [1, 2]
    assert np.isfinite([(row.train_loss, row.val_loss) for row in rows]).all()
    saved = sorted(path.parent.name for path in folder.glob("checkpoints/*/manifest.json"))
    assert saved == ["000001", "000002"]
    assert not (folder / "interrupted").exists()


def test_patience_ends_training_with_the_best_epoch(dataset, tmp_path, capsys):
    """A rate of 0 changes nothing: no epoch is better than the first, but for its statistics."""
    run, epochs, (_, best) = follow(dataset, tmp_path, optax.sgd(0.0), patience=1, epochs=30)
    assert len(run.rows) < 30
    assert "stopped early: no lower validation loss for 1 epochs" in capsys.readouterr().out
    assert best.val_loss == min(row.val_loss for row in run.rows)
    assert {best.epoch, run.rows[-1].epoch} <= set(epochs)


def test_curves_end_with_all_epochs_and_are_not_drawn_for_each(dataset, tmp_path, monkeypatch):
    """Epochs take a moment here: the first is drawn, the others when training ends."""
    drawn = []
    monkeypatch.setattr(plots, "curves", lambda rows, title: drawn.append(len(rows)))
    monkeypatch.setattr(plots, "save", lambda figure, path: None)
    follow(dataset, tmp_path / "quick", optax.sgd(0.01))
    assert drawn == [1, 5]
    drawn.clear()
    monkeypatch.setattr(experiment, "REDRAW", 0)
    follow(dataset, tmp_path / "slow", optax.sgd(0.01))
    assert drawn == [1, 2, 3, 4, 5]


def test_a_result_is_kept_for_its_own_epoch_alone(dataset, tmp_path, monkeypatch):
    """A finished run went on to a better epoch and was cut short before its test: that is made up
    for when it is resumed, and is not made again when it is resumed once more.
    """
    folder = untrained(tmp_path, CONFIG.data, size=16, epochs=3)
    first = json.loads((folder / "test.json").read_text())
    assert first["epoch"] == 2
    looks = []
    real = type(dataset).test_side
    monkeypatch.setattr(type(dataset), "test_side", lambda *a: looks.append(1) or real(*a))
    model = ConvNet([Conv(4), GlobalPool()], classes=len(dataset.classes))
    images = dataset.side("val").images[:1]
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(1))

    def resume():
        config = json.loads((folder / "config.json").read_text())
        with Run.reopen(folder, dataset, config=config | {"epochs": 4}, source=__file__) as run:
            conclude(run, history.best(run.rows), dataset, model, variables)
        return json.loads((folder / "test.json").read_text())

    assert resume() == first
    assert looks == []
    rows = [row(epoch, loss) for epoch, loss in enumerate((2.5, 2.4, 2.6, 2.3), 1)]
    (folder / "history.csv").write_text(history.to_csv(rows))
    second = resume()
    assert second["epoch"] == 4
    assert second["loss"] != first["loss"]
    assert resume() == second
    assert looks == [1]
