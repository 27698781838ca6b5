"""What every experiment does around its own expressions: flags, pictures, one test at the end.

An experiment file defines its `Config` and `main(config)`; this module holds what two experiments
would otherwise repeat. See experiments/scratch.py.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import flax.linen as nn
import numpy as np
from jaxtyping import PyTree

from jaxgear import prediction
from jaxgear.bundle import Bundle
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import Dataset, Side, open_dataset
from jaxgear.data.known import KnownPictures
from jaxgear.errors import UsageError
from jaxgear.evaluation import calibration, metrics, plots, tiles
from jaxgear.files import write_json
from jaxgear.training import history
from jaxgear.training.runs import Run, environment, read_json
from jaxgear.training.steps import TrainState


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags that all experiments have. Every field of an experiment's Config is a scalar."""

    data: str = ""
    """Folder of photographs (FOLDER/<class>/*), tfds:NAME@DIR or drawn:COUNT. Empty:
    data/gear_images if it is there, else the drawn set."""
    out: str = "results/runs"
    """Folder in which the run folder is made."""
    resume: str = ""
    """Run folder to continue; its config holds, unless --epochs asks for more."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable pictures: stop with a list, or train without them."""
    seed: int = 0
    """Decides the split, the order, the first weights and every augmentation."""
    epochs: int = 20
    batch_size: int = 48
    image_size: int = 128
    """Pictures are letterboxed to a square of this many pixels."""
    patience: int = 10
    """Stop after this many epochs without a lower validation loss."""

    def check(self) -> None:
        """Raises UsageError for values that cannot work, before anything is written."""
        for name in ("epochs", "batch_size", "image_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: must be at least 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must not be negative")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not 0 <= value < float("inf"):
                raise UsageError(f"{_flag(field.name)} {value}: must be finite and not negative")


C = TypeVar("C", bound=Config)


def stored_config(config: type[C], run: str) -> C:
    """The config that a run was started with."""
    stored = read_json(Path(run) / "config.json")
    try:
        return dataclasses.replace(config(**stored), resume=run)
    except TypeError as error:
        raise UsageError(f"--resume {run}: not a run of this experiment ({error})") from error


def check_resumed(config: C, stored: C) -> C:
    """`config` may ask for more epochs than `stored`, and for nothing else that is different."""
    changed = [
        f"{_flag(field.name)} (the run has {getattr(stored, field.name)})"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(stored, field.name) and field.name != "epochs"
    ]
    if changed:
        raise UsageError(f"--resume {config.resume}: cannot change {', '.join(changed)}")
    return config


def start(config: Config, source: str, dataset: Dataset) -> Run:
    """A new run folder, or the one that `--resume` names."""
    if config.resume:
        return Run.reopen(config.resume, dataset)
    name = Path(source).stem
    return Run.create(config.out, name, dataclasses.asdict(config), dataset, source)


def open_data(config: Config) -> Dataset:
    """The set that `--data` names, checked and split by `--seed`."""
    dataset = open_dataset(
        config.data, size=config.image_size, seed=config.seed, on_bad=config.on_bad
    )
    if config.batch_size > dataset.counts()["train"]:
        raise UsageError(
            f"--batch-size {config.batch_size}: only {dataset.counts()['train']} pictures to "
            "train on"
        )
    return dataset


def picture_batches(config: Config, dataset: Dataset) -> tuple[Batches, Batches]:
    """The training and validation sides, on the device."""
    train, val = (
        Batches(side.images, side.labels, config.batch_size, config.seed)
        for side in (dataset.side("train"), dataset.side("val"))
    )
    return train, val


def follow(
    run: Run,
    state: TrainState,
    epochs: Iterator[tuple[TrainState, history.Row]],
    patience: int,
) -> TrainState:
    """Records each epoch and redraws the curves; stops early when patience has run out.

    The state after the last epoch, or `state` where a resumed run has none left to train.
    """
    if run.rows and history.epochs_since_best(run.rows) >= patience:
        return state
    for state, row in epochs:
        run.record(state, row)
        plots.save(plots.curves(run.rows, run.path.name), run.path / "curves.png")
        if history.epochs_since_best(run.rows) >= patience:
            print(f"stopped early: no lower validation loss for {patience} epochs")
            break
    return state


def last(epochs: Iterator[tuple[TrainState, history.Row]]) -> TrainState:
    """The state after epochs that need no record."""
    return collections.deque(epochs, maxlen=1)[0][0]


def conclude(
    run: Run,
    row: history.Row,
    dataset: Dataset,
    model: nn.Module,
    variables: PyTree,
    logits_of: Callable[[Side], np.ndarray] | None = None,
) -> Path:
    """Hands on the model of `row`, the best epoch, and tests it: all that reads test pictures.

    Writes `model/`, `test.json`, `confusion.png` and `predictions.png`, and prints the last line.
    `logits_of` is a quicker way to the model's logits than from pictures, where there is one.
    """
    if sentence := history.overfitting(run.rows):
        print(sentence)
    records = dataset.folder.records
    bundle = Bundle(
        model=model,
        variables=variables,
        classes=dataset.classes,
        size=dataset.size,
        temperature=1.0,
        fingerprint=dataset.folder.fingerprint,
        pictures=KnownPictures.of((record.sha256 for record in records), dataset.sides),
        versions=environment()["versions"],
        about={"run": run.path.name} | dataclasses.asdict(row),
    )
    if logits_of is None:
        predictor = prediction.Predictor(bundle)
        logits_of = lambda side: predictor.logits(side.images)  # noqa: E731
    val, test = dataset.side("val"), dataset.side("test")
    temperature = calibration.fit_temperature(np.asarray(logits_of(val)), val.labels)
    bundle = dataclasses.replace(bundle, temperature=temperature)
    bundle.save(run.path / "model")
    logits = np.asarray(logits_of(test))
    summary = metrics.summarise(logits, test.labels, dataset.classes, temperature)
    write_json(run.path / "test.json", {**summary, "epoch": row.epoch})
    caption = (
        f"test accuracy {summary['accuracy']:.4f} ({summary['n']} pictures), epoch {row.epoch}"
    )
    plots.save(
        plots.confusion(summary["confusion"], dataset.classes, caption), run.path / "confusion.png"
    )
    plots.save(
        plots.grid(tiles.test_tiles(test, bundle.probs(logits), dataset.classes), caption),
        run.path / "predictions.png",
    )
    low, high = summary["interval95"]
    print(
        f"best epoch {row.epoch}: macro-F1 {summary['macro_f1']:.4f}, "
        f"95 % interval of the accuracy {low:.4f} to {high:.4f}"
    )
    print(f"{run.path}\ttest accuracy {summary['accuracy']:.4f}", flush=True)
    return run.path


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
