"""Trains a recipe in a run folder: opens the pictures, resumes, records, draws, hands on.

    with experiment.start(config, recipe) as run:
        for row in run.epochs():
            if run.patience_exhausted:
                break
        return run.finish()

See experiments/scratch.py. `prepare` gives what is trained without a run folder.
"""

import collections
import contextlib
import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgear import devices
from jaxgear.bundle import Bundle
from jaxgear.compile_cache import keep_compiled
from jaxgear.conclusion import HandedOn, conclude
from jaxgear.config import Config
from jaxgear.data.augment import Mix, one_of, one_view, stream
from jaxgear.data.backgrounds import Bank, empty, scenes
from jaxgear.data.bank import background_bank
from jaxgear.data.batches import Batches
from jaxgear.data.cutout import with_masks
from jaxgear.data.dataset import Dataset, few, keep_trained_out, open_dataset
from jaxgear.data.pasted import and_pasted, scene_side
from jaxgear.diagnosis import diagnosed
from jaxgear.errors import UsageError
from jaxgear.program import flat, structured
from jaxgear.recipe import Data, Make, Recipe, source_of
from jaxgear.training import history, loop, optim, steps
from jaxgear.training.progress import Progress
from jaxgear.training.runs import Run, read_json
from jaxgear.training.steps import TrainState

REDRAW = 15  # seconds between two drawings of the curves, each 0.3: an epoch may take less than one
SCENES = 400  # backgrounds alone whose features are kept: no gear


def start(config: Config, make: Make) -> "Experiment":
    """A new run folder, or the one that `--resume` names, and all that is trained in it.

    The folder is named after the file in which the Config is defined.

    Raises:
        UsageError: hosts that see different pictures, or what `prepare` and `Run` say.
    """
    training = prepare(config, make)
    dataset = training.dataset
    if devices.from_first(dataset.folder.fingerprint) != dataset.folder.fingerprint:
        raise UsageError(f"--data {config.data}: not the pictures that host 0 sees there")
    recipe, variables = training.recipe, training.state.variables
    with diagnosed(recipe, training.train, len(dataset.classes)):
        if recipe.features is not None:
            variables = recipe.features.variables(variables)
        # What the end needs is made before step 0: what cannot be handed on is said now.
        handed_on = HandedOn.of(recipe.network(), variables, dataset.size, len(dataset.classes))
    fields, source = dataclasses.asdict(config), source_of(make)
    bank = training.bank
    backgrounds = None if bank is None else hashlib.sha256(np.asarray(bank)).hexdigest()
    if config.resume:
        run = Run.reopen(
            config.resume,
            dataset,
            config=fields | {"resume": ""},
            source=source,
            backgrounds=backgrounds,
            from_epoch=config.from_epoch,
            allow_data_change=config.allow_data_change,
        )
    else:
        file = getattr(sys.modules[type(config).__module__], "__file__", None)
        name = Path(file).stem if file else "notebook"
        run = Run.create(config.out, name, fields, dataset, source, backgrounds)
    return Experiment(config, training, handed_on, run)


class Experiment:
    """A recipe that is trained in a run folder. A context manager: leaving it lets go of both."""

    def __init__(self, config: Config, training: "Training", handed_on: HandedOn, run: Run):
        self.config, self.training, self.run = config, training, run
        self.recipe = training.recipe
        self.state = training.state
        self._handed_on = handed_on
        self._epochs: Generator[history.Row] | None = None

    def __enter__(self) -> "Experiment":
        self.run.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._close()
        finally:
            self.run.__exit__(*error)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def rows(self) -> list[history.Row]:
        """The history so far, of resumed epochs too."""
        return self.run.rows

    @property
    def patience_exhausted(self) -> bool:
        """Whether validation loss has had no new minimum for `--patience` epochs."""
        return bool(self.rows) and history.epochs_since_best(self.rows) >= self.config.patience

    def epochs(self) -> Iterator[history.Row]:
        """Trains the epochs that are left and gives the row of each, when it is on disk.

        Keeps the curves drawn. A signal saves the state after the last finished step, and then ends
        the process.
        """
        self.state = self.run.latest(self.state)
        self._epochs = self._train()
        return self._epochs

    def finish(self) -> Path:
        """Hands on the best epoch and tests it; returns the run folder."""
        self._close()
        if self.patience_exhausted and self.rows[-1].epoch < self.recipe.epochs:
            patience = self.config.patience
            print(f"stopped early: no lower validation loss for {patience} epochs")
        best, row = self.run.best(self.state)
        recipe, variables = self.recipe, best.variables
        features_of = None
        if recipe.features is not None:
            features_of = recipe.features.tested
            variables = recipe.features.variables(variables)
        return conclude(
            *(self.run, row, self.training.dataset, self._handed_on, variables),
            features_of=features_of,
            bank=self.training.bank,
            share=recipe.evidence,
        )

    def _close(self) -> None:
        if self._epochs is not None:
            self._epochs.close()

    def _train(self) -> Generator[history.Row]:
        # Not above: matplotlib takes 0.2 s, which `--help` need not wait for.
        from jaxgear.evaluation import plots

        def draw() -> None:
            if devices.first_host():
                plots.save(plots.curves(self.rows, self.path.name), self.path / "curves.png")

        if self.patience_exhausted:  # it ended so before it was resumed
            return
        training, drawn, stale = self.training, -math.inf, False
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(Progress(self.recipe.epochs))
            stack.enter_context(
                diagnosed(self.recipe, training.train, len(training.dataset.classes))
            )
            first = len(self.rows) + 1
            epochs = training.epochs(
                self.state, first=first, last=self.recipe.epochs, progress=progress
            )
            stack.enter_context(contextlib.closing(epochs))
            try:
                for self.state, row in epochs:
                    self.run.record(self.state, row)
                    if row.epoch == first and math.isnan(row.learning_rate):
                        progress.say(
                            "note: the optimizer does not ask for the recipe's rate: history.csv "
                            "has none"
                        )
                    stale = time.monotonic() - drawn < REDRAW
                    if not stale:
                        draw()
                        drawn = time.monotonic()
                    yield row
            except loop.Stopped as stopped:
                self.run.pause(stopped.state)
                raise
            finally:
                if stale:
                    with contextlib.suppress(OSError):  # whatever ends the run is the news
                        draw()


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A recipe and its data, ready for the loop."""

    recipe: Recipe
    dataset: Dataset
    bank: Bank | None
    train: Batches
    val: Batches
    state: TrainState
    rate: optim.Rate
    step_options: dict[str, Any]  # of `steps.train_step`

    def epochs(
        self, state: TrainState, *, first: int = 1, last: int, progress: Progress
    ) -> Generator[tuple[TrainState, history.Row]]:
        """`loop.epochs` of the recipe, from `state` on."""
        return loop.epochs(
            state,
            self.train,
            self.val,
            first=first,
            last=last,
            schedule=self.rate.recorded,
            progress=progress,
            layout=self.recipe.layout,
            **self.step_options,
        )


def prepare(config: Config, make: Make) -> Training:
    """Opens the data, makes the recipe and its first state; writes nothing.

    Raises:
        UsageError: a network or an optimizer that cannot be trained, by name.
        DataError: what `open_dataset` says.
    """
    config.check()
    devices.check_switches()
    dataset = open_data(config)
    bank = open_backgrounds(config)
    recipe = make(config, Data(dataset.training_counts(), config.batch_size, bank))
    training = _ready(config, recipe, dataset, bank)
    return dataclasses.replace(training, state=warm_start(config, training.state))


def _ready(config: Config, recipe: Recipe, dataset: Dataset, bank: Bank | None) -> Training:
    variables = None
    if recipe.first is not None:
        first = _ready(config, recipe.first, dataset, bank)
        epochs = first.epochs(first.state, last=recipe.first.epochs, progress=Progress(quiet=True))
        ((state, _),) = collections.deque(epochs, maxlen=1)
        variables = recipe.first.features.variables(devices.local(state.variables))
    train, val = _batches(config, recipe, dataset, bank)
    rate = optim.Rate(recipe.schedule)
    with diagnosed(recipe, train, len(dataset.classes)):
        tx = dataclasses.replace(recipe, rate=rate).tx
        state = steps.init_state(
            recipe.model, tx, val.images[:1], config.seed, recipe.average > 0, variables
        )
    return Training(
        recipe,
        dataset,
        bank,
        train,
        val,
        state,
        rate,
        step_options={
            "classes": len(dataset.classes),
            "loss": recipe.loss,
            "augment": recipe.augment if recipe.features is None else one_view(),
            "mix": _mix(recipe, bank, config.image_size),
            "class_weights": recipe.class_weights,
            "decay": recipe.average,
            "microbatch": config.microbatch,
            "per_example": recipe.per_example,
        },
    )


def _batches(
    config: Config, recipe: Recipe, dataset: Dataset, bank: Bank | None
) -> tuple[Batches, Batches]:
    """The training and validation splits: images, or features of them."""
    if recipe.features is None:
        return picture_batches(config, dataset, bank)
    train = dataset.side("train")
    masked = train if bank is None else with_masks(train, dataset.folder)
    val = and_pasted(dataset.side("val"), dataset.folder, bank)
    return (
        Batches(
            recipe.features.train(masked),
            train.labels,
            config.batch_size,
            config.seed,
            train.names,
        ),
        Batches(recipe.features.plain(val), val.labels, config.batch_size),
    )


def _mix(recipe: Recipe, bank: Bank | None, size: int) -> Mix | None:
    """The recipe's mix, and then its outliers where there are backgrounds."""
    if bank is None or not recipe.outliers:
        return recipe.mix
    alone = scenes(bank)
    if recipe.features is not None:
        alone = one_of(recipe.features.plain(scene_side(bank, size, SCENES)))
    outliers = empty(alone, recipe.outliers)
    if recipe.mix is None:
        return outliers
    return lambda keys, *batch: outliers(stream(keys, 2), *recipe.mix(keys, *batch))


def open_data(config: Config) -> Dataset:
    """The set that `--data` names, checked and split by `--seed`.

    The first thing an experiment does: programs compiled from here on are kept.
    """
    keep_compiled()
    dataset = open_dataset(
        config.data,
        size=config.image_size,
        seed=config.seed,
        on_bad=config.on_bad,
        group_by=config.group_by,
    )
    if config.resume:
        dataset = keep_trained_out(read_json(Path(config.resume) / "splits.json"), dataset)
    if config.batch_size > dataset.counts()["train"]:
        raise UsageError(
            f"--batch-size {config.batch_size}: only {dataset.counts()['train']} pictures to "
            "train on"
        )
    return dataset.streamed(config.stream, channels=4 if config.backgrounds else 3)


def open_backgrounds(config: Config) -> Bank | None:
    """What `--backgrounds` names, on the device (data/bank.py); None for no backgrounds."""
    if not config.backgrounds:
        return None
    folder = None if config.backgrounds == "drawn" else Path(config.backgrounds)
    bank = background_bank(folder, config.image_size, config.seed)
    print(f"backgrounds: {len(bank)} pieces, of {config.backgrounds}")
    return jnp.asarray(bank)


def picture_batches(
    config: Config, dataset: Dataset, bank: Bank | None = None
) -> tuple[Batches, Batches]:
    """The training and validation sides, on the devices, or streamed to them.

    With a bank of backgrounds training pictures have the mask of their object as a fourth channel,
    and validation pictures are there twice: as they are, and pasted; both are made when they are
    due, or, where the set is not `stored`, all at once.
    """
    train, batches = dataset.side("train"), Batches
    if dataset.stored:
        from jaxgear.data.stream import Stream  # Grain: 0.4 s that most runs need not wait for

        batches = Stream
    if bank is not None:
        train = with_masks(train, dataset.folder)
    val = and_pasted(dataset.side("val"), dataset.folder, bank)
    train, val = (
        batches(side.images, side.labels, config.batch_size, config.seed, side.names)
        for side in (train, val)
    )
    return train, val


def warm_start(config: Config, state: TrainState) -> TrainState:
    """`state`, with the weights of `--init-from` wherever name and shape are the same.

    Raises:
        UsageError: not one leaf fits.
    """
    if not config.init_from:
        return state
    there = Bundle.load(config.init_from).weights
    here = flat({"params": state.params, **state.model_state})
    fits = {k for k, leaf in here.items() if k in there and there[k].shape == leaf.shape}
    if not fits:
        raise UsageError(f"--init-from {config.init_from}: none of its weights fit this network")
    rest = [
        f"{k} {list(here[k].shape) if k in here else 'missing'} here, "
        f"{list(there[k].shape) if k in there else 'missing'} there"
        for k in sorted((here.keys() | there.keys()) - fits)
    ]
    print(f"weights of {config.init_from}: {len(fits)} of {len(here)} leaves taken")
    if rest:
        print(f"not taken: {few(rest, 5)}")
    like = {"params": state.params, **state.model_state}
    taken = structured(like)(
        {k: jnp.asarray(there[k], leaf.dtype) if k in fits else leaf for k, leaf in here.items()}
    )
    params = taken.pop("params")
    averaged = None
    if state.averaged is not None:
        averaged = jax.tree.map(jnp.copy, {"params": params, **taken})
    return state.replace(
        params=params, model_state=taken, averaged=averaged, opt_state=state.tx.init(params)
    )
