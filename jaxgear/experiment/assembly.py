"""Joins a recipe and its data for the loop: splits, backgrounds, batches, the first state.

`prepare` writes nothing, so a benchmark or a notebook can train without a run folder.
"""

import collections
import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxgear.bundle import Bundle
from jaxgear.data.augment import Bank, Mix, one_of, one_view, outlier_exposure, scenes, stream
from jaxgear.data.batches import Batches
from jaxgear.data.composites import background_bank, scene_split, with_masks, with_pasted
from jaxgear.data.dataset import Dataset, open_dataset, without_trained
from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.recipe import Data, Make, Recipe
from jaxgear.machine import devices
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.program import flat, structured
from jaxgear.text import few
from jaxgear.training import history, loop, optim, steps
from jaxgear.training.progress import Progress
from jaxgear.training.runs.folder import read_json
from jaxgear.training.state import TrainState

SCENES = 400  # backgrounds without gear whose features are cached


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
    step_options: dict[str, Any]  # keyword arguments of `steps.train_step`

    def epochs(
        self, state: TrainState, *, first: int = 1, last: int, progress: Progress
    ) -> Generator[tuple[TrainState, history.Row]]:
        """Trains epochs `first` to `last` from `state` with `loop.epochs`."""
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
        UsageError: a network or an optimizer cannot be trained; the message names it.
        DataError: as `open_dataset`.
    """
    config = config.expanded()
    config.check()
    devices.check_switches()
    dataset = open_data(config)
    bank = open_backgrounds(config)
    recipe = make(config, Data(dataset.training_counts(), config.batch_size, bank))
    training = _ready(config, recipe, dataset, bank)
    return dataclasses.replace(training, state=warm_start(config, training.state))


def _ready(config: Config, recipe: Recipe, dataset: Dataset, bank: Bank | None) -> Training:
    """A recipe with batches and a state at step 0; first trains `recipe.first`, if there is one."""
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
    """Training and validation batches of images or features, on the devices or streamed to them.

    With a bank of backgrounds, training images have an object mask as a fourth channel, and
    validation has each image twice: plain and pasted. A `stored` set makes masks and composites
    when a batch needs them; any other set makes all of them at once.
    """
    train, batches = dataset.split("train"), Batches
    if bank is not None:
        train = with_masks(train, dataset.folder)
    val = with_pasted(dataset.split("val"), dataset.folder, bank)
    images = train.images, val.images
    if recipe.features is not None:
        images = recipe.features.train(train), recipe.features.plain(val)
    elif dataset.stored:
        from jaxgear.data.stream import Stream

        batches = Stream
    train, val = (
        batches(inputs, split.labels, config.batch_size, config.seed, split.names)
        for inputs, split in zip(images, (train, val), strict=True)
    )
    return train, val


def _mix(recipe: Recipe, bank: Bank | None, size: int) -> Mix | None:
    """The recipe's mix, followed by outlier exposure if there are backgrounds."""
    if bank is None or not recipe.outliers:
        return recipe.mix
    alone = scenes(bank)
    if recipe.features is not None:
        alone = one_of(recipe.features.plain(scene_split(bank, size, SCENES)))
    outliers = outlier_exposure(alone, recipe.outliers)
    if recipe.mix is None:
        return outliers
    return lambda keys, *batch: outliers(stream(keys, 2), *recipe.mix(keys, *batch))


def open_data(config: Config) -> Dataset:
    """The data set that `--data` names, checked and split by `--seed`.

    An experiment calls this first: programs compiled after it are cached.
    """
    keep_compiled()
    dataset = open_dataset(
        config.data,
        size=config.image_size,
        seed=config.seed,
        on_bad=config.on_bad,
        group_by=config.group_by,
        labels=config.labels,
    )
    if config.resume:
        dataset = without_trained(read_json(Path(config.resume) / "splits.json"), dataset)
    if config.batch_size > dataset.counts()["train"]:
        raise UsageError(
            f"--batch-size {config.batch_size}: larger than the training split, which has "
            f"{dataset.counts()['train']} pictures"
        )
    return dataset.streamed(config.stream, channels=4 if config.backgrounds else 3)


def open_backgrounds(config: Config) -> Bank | None:
    """The backgrounds that `--backgrounds` names, on the device (composites/bank.py), or None."""
    if not config.backgrounds:
        return None
    folder = None if config.backgrounds == "drawn" else Path(config.backgrounds)
    bank = background_bank(folder, config.image_size, config.seed)
    print(f"backgrounds: {len(bank)} pieces, from {config.backgrounds}")
    return jnp.asarray(bank)


def warm_start(config: Config, state: TrainState) -> TrainState:
    """`state` with the weights of `--init-from` wherever name and shape match.

    Raises:
        UsageError: no leaf fits.
    """
    if not config.init_from:
        return state
    theirs = Bundle.load(config.init_from).weights
    ours = flat({"params": state.params, **state.model_state})
    fits = {k for k, leaf in ours.items() if k in theirs and theirs[k].shape == leaf.shape}
    if not fits:
        raise UsageError(f"--init-from {config.init_from}: none of its weights fit this network")
    rest = [
        f"{k} {list(ours[k].shape) if k in ours else 'missing'} in this network, "
        f"{list(theirs[k].shape) if k in theirs else 'missing'} in the file"
        for k in sorted((ours.keys() | theirs.keys()) - fits)
    ]
    print(f"weights of {config.init_from}: {len(fits)} of {len(ours)} leaves taken")
    if rest:
        print(f"not taken: {few(rest, 5)}")
    like = {"params": state.params, **state.model_state}
    taken = structured(like)(
        {k: jnp.asarray(theirs[k], leaf.dtype) if k in fits else leaf for k, leaf in ours.items()}
    )
    params = taken.pop("params")
    averaged = None
    if state.averaged is not None:
        averaged = jax.tree.map(jnp.copy, {"params": params, **taken})
    return state.replace(
        params=params, model_state=taken, averaged=averaged, opt_state=state.tx.init(params)
    )
