"""Joins a recipe and its data for the loop: splits, backgrounds, batches, the first state.

`prepare` writes nothing, so a benchmark or a notebook can train without a run folder.
"""

import collections
import dataclasses
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp

from jaxgear.bundle import Bundle
from jaxgear.data.augment import Bank, one_view
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import Dataset
from jaxgear.data.sampling import Sampling
from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.inputs import (
    batches_of,
    mix_of,
    open_backgrounds,
    open_data,
    sampling_of,
)
from jaxgear.experiment.recipe import Data, Make, Recipe
from jaxgear.machine import devices
from jaxgear.program import flat, structured
from jaxgear.text import few
from jaxgear.training import history, loop, optim
from jaxgear.training.progress import Progress
from jaxgear.training.state import TrainState, init_state

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
    sampling = sampling_of(config, recipe, dataset)
    train, val = batches_of(config, recipe, dataset, bank, sampling)
    rate = optim.Rate(recipe.schedule)
    with diagnosed(recipe, train, len(dataset.classes)):
        tx = dataclasses.replace(recipe, rate=rate).tx
        state = init_state(
            *(recipe.model, tx, val.images[:1], config.seed, recipe.average > 0, variables),
            pseudo_labels=sampling.beside > 0,
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
            "mix": mix_of(recipe, bank, config.image_size),
            "class_weights": recipe.class_weights,
            "decay": recipe.average,
            "microbatch": config.microbatch,
            "per_example": recipe.per_example,
            **_of_unlabelled(recipe, sampling),
        },
    )


def _of_unlabelled(recipe: Recipe, sampling: Sampling) -> dict[str, Any]:
    """The arguments of `steps.train_step` about images without labels."""
    if not sampling.beside:
        return {}
    views = lambda features: features[:, 0]  # noqa: E731 - the first view is the image itself
    plain = {"plain": views} if recipe.features is not None else {}
    return {"pseudo_labels": recipe.pseudo_labels, "beside": sampling.beside, **plain}


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
