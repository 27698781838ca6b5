"""Makes run folders without training."""

import json
from pathlib import Path

import jax

from jaxgear.data.dataset import open_dataset
from jaxgear.experiment.conclusion import HandedOn, conclude
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import history
from jaxgear.training.runs.run import Run

SOURCE = "tx = optax.muon(schedule)\nmodel = ConvNet([])\n"


def row(epoch: int, loss: float, accuracy: float = 0.5) -> history.Row:
    return history.Row(epoch, 10 * epoch, 1.0 / epoch, loss, 0.6, accuracy, 0.1, 2.0)


def write_run(
    path: Path,
    losses=(2.0, 1.0, 1.5),
    *,
    accuracy: float | None = 0.9,
    seed: int = 0,
    source: str = SOURCE,
    fingerprint: str = "f" * 64,
    test_pictures: str | None = None,
    test_label: str = "axes",
    environment=(),
    **config,
) -> Path:
    """Writes a run with figures only, no images and no model; `accuracy` None: not tested."""
    path.mkdir(parents=True)
    splits = {"train": "a", "val": "b", "test": test_pictures or f"c{seed}"}
    pictures = [
        {"path": f"axes/{sha}.jpg", "sha256": sha, "class": "axes", "group": sha, "side": split}
        for split, sha in splits.items()
    ]
    pictures[-1]["class"] = test_label
    splits = {"fingerprint": fingerprint, "classes": ["axes"], "pictures": pictures}
    files = {
        "config.json": {"seed": seed, "out": str(path.parent), "resume": "", **config},
        "environment.json": {"python": "3.11", **dict(environment)},
        "splits.json": splits,
    }
    if accuracy is not None:
        files["test.json"] = {"accuracy": accuracy, "loss": 0.5, "macro_f1": accuracy - 0.1}
    for name, value in files.items():
        (path / name).write_text(json.dumps(value))
    (path / "experiment.py").write_text(source)
    rows = [row(epoch, loss) for epoch, loss in enumerate(losses, 1)]
    (path / "history.csv").write_text(history.to_csv(rows))
    return path


def untrained(out: Path, data: str, *, size: int = 32, model=None, **config) -> Path:
    """A run of an untrained network with all files, the bundle included."""
    labels = config.get("labels", "")
    dataset = open_dataset(data, size=size, seed=0, labels=labels, say=lambda line: None)
    model = model or ConvNet([Conv(4, strides=2), Conv(8), GlobalPool()], len(dataset.classes))
    images = dataset.split("val").images[:1]
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    config = {"data": data, "seed": 0, "image_size": size, "on_bad": "stop"} | config
    with Run.create(out, "scratch", config, dataset, SOURCE) as run:
        run.rows = [row(epoch, loss) for epoch, loss in enumerate((2.5, 2.4, 2.6), 1)]
        (run.path / "history.csv").write_text(history.to_csv(run.rows))
        handed_on = HandedOn(model, variables, size, len(dataset.classes))
        return conclude(run, run.rows[1], dataset, handed_on, variables)
