"""Joins a recipe and its data for the loop: splits, backgrounds, batches, the first state.

`prepare` writes nothing, so a benchmark or a notebook can train without a run folder.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, PyTree

from jaxgear.bundle import Bundle
from jaxgear.data.augment import Bank, one_view
from jaxgear.data.batches import Batches, in_batches
from jaxgear.data.composites import scene_split
from jaxgear.data.dataset import Dataset, Split
from jaxgear.data.recorded import Recorded, describe_unlabelled, with_recorded_labels
from jaxgear.data.unlabelled import all_unlabelled, how_used, pseudo_labelled
from jaxgear.errors import UsageError
from jaxgear.evaluation.no_gear import evidence, refusal
from jaxgear.experiment.config import Config
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.inputs import batches_of, mix_of, open_backgrounds, open_data
from jaxgear.experiment.recipe import Data, Make, Recipe
from jaxgear.machine import devices
from jaxgear.program import Program, flat, structured
from jaxgear.text import few
from jaxgear.training import history, loop, optim, steps
from jaxgear.training.progress import Progress
from jaxgear.training.state import TrainState

NAMED = 64  # images without labels in a batch


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
    scales: list[float]  # of the images of each epoch (`Recipe.scales`)
    step_options: dict[str, Any]  # keyword arguments of `steps.train_step`
    run_epochs: Callable[..., Generator[tuple[TrainState, history.Row]]] = loop.epochs

    def epochs(
        self, state: TrainState, *, first: int = 1, last: int, progress: Progress, **options: Any
    ) -> Generator[tuple[TrainState, history.Row]]:
        """Trains epochs `first` to `last` from `state`; options are those of `loop.epochs`."""
        return self.run_epochs(
            state,
            self.train,
            self.val,
            first=first,
            last=last,
            schedule=self.rate.recorded,
            progress=progress,
            layout=self.recipe.layout,
            scales=self.scales,
            **self.step_options,
            **options,
        )


def prepare(config: Config, make: Make, mesh: Mesh | None = None) -> Training:
    """Opens the data, makes the recipe and its first state; writes nothing.

    It trains on the devices of `mesh`; None: on all.

    Raises:
        UsageError: a network or an optimizer cannot be trained; the message names it.
        DataError: as `open_dataset`.
    """
    config = config.expanded()
    config.check()
    devices.check_switches()
    dataset = open_data(config)
    bank = open_backgrounds(config)
    if dataset.unlabelled is not None:
        dataset = _named(config, make, dataset, bank, mesh)
    recipe = make(config, _data(config, dataset, bank))
    training = _ready(config, recipe, dataset, bank, mesh)
    return dataclasses.replace(training, state=warm_start(config, training.state))


def _data(config: Config, dataset: Dataset, bank: Bank | None) -> Data:
    return Data(dataset.training_counts(), config.batch_size, bank, config.epoch_share)


def _named(
    config: Config, make: Make, dataset: Dataset, bank: Bank | None, mesh: Mesh | None
) -> Dataset:
    """`dataset` with pseudo-labels, by a network that is trained on the labels alone.

    It is trained as the recipe says, or as `Recipe.first` says, to its last epoch. A resumed run
    has its pseudo-labels already.
    """
    if config.resume:
        return with_recorded_labels(Recorded.read(config.resume).unlabelled, dataset)
    print("first round: trains on the labels alone, to name the pictures without labels")
    alone = dataclasses.replace(dataset, unlabelled=None)
    recipe = make(config, _data(config, alone, bank))
    training = _ready(config, recipe.first or recipe, alone, bank, mesh)
    if recipe.first is None:
        training = dataclasses.replace(training, state=warm_start(config, training.state))
    state = _trained(training, Progress(training.recipe.epochs))
    split, features = all_unlabelled(dataset), training.recipe.features
    images = split.images if features is None else features.tested(split)
    apply = jax.jit(functools.partial(state.apply, train=False))
    variables = devices.local(state.variables)
    logits = in_batches(lambda rows: apply(variables, rows), (images,), NAMED)
    probs = np.asarray(jax.nn.softmax(logits))
    gear = _show_gear(training.recipe, variables, dataset, bank)
    named = pseudo_labelled(dataset, probs, recipe.pseudo_labels, gear)
    # All hosts take those of the first: rounding may differ between hosts.
    shared = json.loads(devices.from_first(json.dumps(describe_unlabelled(named))))
    named = with_recorded_labels(shared, dataset)
    if left_out := sum(not label.gear for label in named.pseudo_labels):
        print(f"{left_out} of {len(logits)} pictures without labels show no gear, so are left out")
    share, right = how_used(named)
    text = "" if np.isnan(right) else f" (right: {right:.4f})"
    print(f"second round: trains with {round(share * len(logits))} pseudo-labels too{text}")
    return named


def _show_gear(
    recipe: Recipe, variables: PyTree, dataset: Dataset, bank: Bank | None
) -> Bool[np.ndarray, " U"]:
    """Which of the images without labels look more like gear than most backgrounds do.

    Without backgrounds, or if the network ends in no dense layer, all of them.
    """
    unlabelled, size = all_unlabelled(dataset), dataset.size
    all_of_them = np.ones(len(unlabelled.labels), bool)
    if bank is None:
        return all_of_them
    if recipe.features is not None:
        variables = recipe.features.variables(variables)
    program = Program.of(recipe.network(), variables, size)
    if program.head is None:
        return all_of_them
    weights = flat(variables)
    if recipe.features is not None:
        features_of = recipe.features.tested
    else:
        of_images = evidence.features_of(program, weights)
        features_of = lambda split: of_images(split.images)  # noqa: E731
    weights = evidence.fitted(weights, program.head, dataset, bank, features_of)

    def score(split: Split) -> Float[np.ndarray, " N"]:
        return evidence.logits_of(weights, program.head, features_of(split)).max(axis=1)

    # Other views than those that the evidence knows.
    scenes = scene_split(bank, size, evidence.SHOWN, seed=1)
    return score(unlabelled) > np.quantile(score(scenes), refusal.BACKGROUNDS)


def _trained(training: Training, progress: Progress) -> TrainState:
    """The state after the last epoch."""
    with progress:
        epochs = training.epochs(training.state, last=training.recipe.epochs, progress=progress)
        ((state, _),) = collections.deque(epochs, maxlen=1)
    return state


def _ready(
    config: Config, recipe: Recipe, dataset: Dataset, bank: Bank | None, mesh: Mesh | None
) -> Training:
    """A recipe with batches and a state at step 0; first trains `recipe.first`, if there is one."""
    variables, scales = None, recipe.scales
    if recipe.first is not None:
        state = _trained(_ready(config, recipe.first, dataset, bank, mesh), Progress(quiet=True))
        variables = recipe.first.features.variables(devices.local(state.variables))
    train, val = batches_of(config, recipe, dataset, bank, mesh)
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
        scales,
        step_options={
            "classes": len(dataset.classes),
            "loss": recipe.loss,
            "augment": recipe.augment if recipe.features is None else one_view(),
            "mix": mix_of(recipe, bank, config.image_size),
            "class_weights": recipe.class_weights,
            "decay": recipe.average,
            "microbatch": config.microbatch,
            "per_example": recipe.per_example,
        },
    )


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
    averaged = {"params": params, **taken}
    averaged = None if state.averaged is None else jax.tree.map(jnp.copy, averaged)
    return state.replace(
        params=params, model_state=taken, averaged=averaged, opt_state=state.tx.init(params)
    )
