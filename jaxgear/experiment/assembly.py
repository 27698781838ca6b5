"""Joins a recipe and its inputs for the loop: batches, pseudo-labels, the first state.

`prepare` writes nothing, so a benchmark or a notebook can train without a run folder.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, PyTree

from jaxgear.bundle import Bundle
from jaxgear.data.augment import one_view
from jaxgear.data.batches import Batches, in_batches
from jaxgear.data.dataset import Split
from jaxgear.data.recorded import Recorded, describe_unlabelled, with_recorded_labels
from jaxgear.data.unlabelled import all_unlabelled, how_used, pseudo_labelled
from jaxgear.errors import UsageError
from jaxgear.evaluation.no_gear import refusal
from jaxgear.experiment.config import Config
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.inputs import Inputs
from jaxgear.experiment.recipe import Make, Recipe, recipe_from
from jaxgear.machine import devices
from jaxgear.program import Program, flat, structured
from jaxgear.text import few
from jaxgear.training import history, loop, optim, steps
from jaxgear.training.progress import Progress
from jaxgear.training.runs.folder import check_made_of
from jaxgear.training.state import TrainState

NAMED = 64  # images without labels in a batch


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A recipe and its inputs, ready for the loop."""

    recipe: Recipe
    inputs: Inputs
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
        CheckpointError: as `check_made_of`.
    """
    config = config.expanded()
    config.check()
    devices.check_switches()
    inputs = Inputs.open(config, mesh)
    if inputs.dataset.unlabelled is not None:
        inputs = _with_pseudo_labels(inputs, make)
    recipe = recipe_from(make, config, inputs.facts)
    if config.resume:
        made_of = inputs.made_of(recipe)
        check_made_of(Path(config.resume), made_of, config.allow_data_change)
    return warm_started(_ready(inputs, recipe))


def _with_pseudo_labels(inputs: Inputs, make: Make) -> Inputs:
    """`inputs` with pseudo-labels, by a network that is trained on the labels alone.

    It is trained as the recipe says, or as `Recipe.first` says, to its last epoch. A resumed run
    has its pseudo-labels already.
    """
    config, dataset = inputs.config, inputs.dataset
    if config.resume:
        recorded = Recorded.read(config.resume).unlabelled
        return dataclasses.replace(inputs, dataset=with_recorded_labels(recorded, dataset))
    print("first round: trains on the labels alone, to name the pictures without labels")
    alone = dataclasses.replace(inputs, dataset=dataclasses.replace(dataset, unlabelled=None))
    recipe = recipe_from(make, config, alone.facts)
    training = _ready(alone, recipe.first or recipe)
    if recipe.first is None:
        training = warm_started(training)
    state = _trained(training, Progress(training.recipe.epochs))
    split, variables = all_unlabelled(dataset), devices.local(state.variables)
    probs = _probabilities(training.recipe, state, variables, split)
    gear = _show_gear(training, variables, split)
    named = pseudo_labelled(dataset, probs, recipe.pseudo_labels, gear)
    # All hosts take those of the first: rounding may differ between hosts.
    shared = json.loads(devices.from_first(json.dumps(describe_unlabelled(named))))
    named = with_recorded_labels(shared, dataset)
    if left_out := sum(not label.gear for label in named.pseudo_labels):
        print(f"{left_out} of {len(probs)} pictures without labels show no gear, so are left out")
    share, right = how_used(named)
    text = "" if np.isnan(right) else f" (right: {right:.4f})"
    print(f"second round: trains with {round(share * len(probs))} pseudo-labels too{text}")
    return dataclasses.replace(inputs, dataset=named)


def _probabilities(
    recipe: Recipe, state: TrainState, variables: PyTree, split: Split
) -> Float[np.ndarray, "N K"]:
    images = split.images if recipe.features is None else recipe.features.inputs(split)
    apply = jax.jit(functools.partial(state.apply, train=False))
    logits = in_batches(lambda rows: apply(variables, rows), (images,), NAMED)
    return np.asarray(jax.nn.softmax(logits))


def _show_gear(training: Training, variables: PyTree, split: Split) -> Bool[np.ndarray, " N"]:
    """`refusal.show_gear`; without backgrounds all images do."""
    recipe, dataset, bank = training.recipe, training.inputs.dataset, training.inputs.bank
    if bank is None:
        return np.ones(len(split.labels), bool)
    variables = recipe.network_variables(variables)
    program = Program.of(recipe.network(), variables, dataset.size)
    return refusal.show_gear(split, program, flat(variables), dataset, bank, recipe.features_of)


def _trained(training: Training, progress: Progress) -> TrainState:
    """The state after the last epoch."""
    with progress:
        epochs = training.epochs(training.state, last=training.recipe.epochs, progress=progress)
        ((state, _),) = collections.deque(epochs, maxlen=1)
    return state


def _ready(inputs: Inputs, recipe: Recipe) -> Training:
    """A recipe with batches and a state at step 0; first trains `recipe.first`, if there is one."""
    config, classes = inputs.config, len(inputs.dataset.classes)
    variables, scales = None, recipe.scales
    if recipe.first is not None:
        state = _trained(_ready(inputs, recipe.first), Progress(quiet=True))
        whole = recipe.first.network_variables(devices.local(state.variables))
        variables = recipe.model_variables(whole)
    train, val = inputs.batches(recipe)
    rate = optim.Rate(recipe.schedule)
    with diagnosed(recipe, train, classes):
        tx = dataclasses.replace(recipe, rate=rate).tx
        state = steps.init_state(
            recipe.model, tx, val.images[:1], config.seed, recipe.average > 0, variables
        )
    return Training(
        recipe,
        inputs,
        train,
        val,
        state,
        rate,
        scales,
        step_options={
            "classes": classes,
            "loss": recipe.loss,
            "augment": recipe.augment if recipe.features is None else one_view(),
            "mix": inputs.mix(recipe),
            "class_weights": recipe.class_weights,
            "decay": recipe.average,
            "microbatch": config.microbatch,
            "per_example": recipe.per_example,
        },
    )


def warm_started(training: Training) -> Training:
    """`training` with the weights of `--init-from` wherever name and shape match.

    Raises:
        UsageError: no leaf fits, or frozen layers of the recipe have other weights there.
    """
    source, state, recipe = training.inputs.config.init_from, training.state, training.recipe
    if not source:
        return training
    theirs = Bundle.load(source).weights
    ours = flat({"params": state.params, **state.model_state})
    if recipe.features is not None:
        whole = flat(recipe.network_variables(devices.local(state.variables)))
        shared = whole.keys() & theirs.keys() - ours.keys()
        frozen = [name for name in shared if name.split("/")[1] == "backbone"]
        if not all(np.array_equal(whole[name], theirs[name]) for name in frozen):
            raise UsageError(f"--init-from {source}: its frozen layers are not those of --weights")
    fits = {k for k, leaf in ours.items() if k in theirs and theirs[k].shape == leaf.shape}
    if not fits:
        raise UsageError(f"--init-from {source}: none of its weights fit this network")
    rest = [
        f"{k} {list(ours[k].shape) if k in ours else 'missing'} in this network, "
        f"{list(theirs[k].shape) if k in theirs else 'missing'} in the file"
        for k in sorted((ours.keys() | theirs.keys()) - fits)
    ]
    print(f"weights of {source}: {len(fits)} of {len(ours)} leaves taken")
    if rest:
        print(f"not taken: {few(rest, 5)}")
    like = {"params": state.params, **state.model_state}
    taken = structured(like)(
        {k: jnp.asarray(theirs[k], leaf.dtype) if k in fits else leaf for k, leaf in ours.items()}
    )
    params = taken.pop("params")
    averaged = {"params": params, **taken}
    averaged = None if state.averaged is None else jax.tree.map(jnp.copy, averaged)
    opt_state = state.tx.init(params)
    state = state.replace(params=params, model_state=taken, averaged=averaged, opt_state=opt_state)
    return dataclasses.replace(training, state=state)
