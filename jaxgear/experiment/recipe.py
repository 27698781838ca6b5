"""All that an experiment decides, as plain data: `recipe(config, data) -> Recipe`.

A recipe names a network, an optimizer with its rate, augmentation and loss. Making one reads no
image and trains nothing, so a test, a benchmark or a notebook can take it apart, or change a field
with `dataclasses.replace`. `jaxgear.experiment` trains it.

The network is any Flax Linen module; wrap a Flax NNX module with `nnx.bridge.to_linen`. A layer
that differs in training takes `train`, `deterministic` or `use_running_average`. The bundle holds
the network as a program (StableHLO), so commands need none of your code. The optimizer is any optax
expression: 57 optimizers and wrappers are tested to resume to the bit. A part that cannot be
trained or exported is named before the first step.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import optax
from jaxtyping import Float, PyTree

from jaxgear.data.augment import Augment, Bank, Mix, backgrounds
from jaxgear.data.batches import epoch_steps
from jaxgear.data.dataset import Split
from jaxgear.errors import UsageError
from jaxgear.experiment.config import Count, Fraction, Share, out_of_range
from jaxgear.machine import devices
from jaxgear.models.features import Frozen
from jaxgear.models.finetune import FROZEN
from jaxgear.training.steps import Loss, smoothed_cross_entropy

CROSS_ENTROPY = smoothed_cross_entropy(0.0)


@dataclass(frozen=True)
class Data:
    """The facts about the data that a recipe may use.

    >>> data = jaxgear.Data(counts=(30, 10), batch_size=8)
    >>> data.classes, data.steps(epochs=2)
    (2, 10)
    >>> data.class_weights(1.0)
    array([0.6666667, 2.       ], dtype=float32)
    """

    counts: tuple[int, ...]  # training images of each class
    batch_size: int
    bank: Bank | None = None  # backgrounds; None: no backgrounds
    epoch_share: float = 1.0  # of a pass over the training images

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.counts)

    def steps(self, epochs: int) -> int:
        """Optimizer steps in `epochs` epochs."""
        return epochs * epoch_steps(sum(self.counts), self.batch_size, self.epoch_share)

    def backgrounds(self, probability: float, **options: float) -> Augment:
        """An augmentation, the last of a chain, that pastes objects on backgrounds.

        See `data.augment.backgrounds` for the options.
        """
        return backgrounds(self.bank, probability, **options)

    def class_weights(self, power: float) -> Float[np.ndarray, " K"]:
        """Loss weights ~ class frequency ** -power, 1 on average over the training images.

        Power 0 weighs all images equally, power 1 all classes.
        """
        counts = np.array(self.counts, np.float64)
        weights = counts**-power
        return np.float32(weights * counts.sum() / (weights * counts).sum())


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train, and how.

    >>> recipe = jaxgear.Recipe(
    ...     model=jaxgear.ConvNet([jaxgear.layers.Conv(8), jaxgear.layers.Pool(4)], classes=12),
    ...     optimizer=optax.adam,
    ...     rate=0.003,
    ...     epochs=10,
    ...     augment=jaxgear.augment.flip(),
    ... )
    >>> float(recipe.schedule(0))
    0.003
    """

    model: nn.Module
    """Any Flax network from images (float32 [B, S, S, 3], RGB, 0 to 255) to logits [B, K]. With
    `features`, its input is the features [B, D], or maps [B, h, w, C]."""
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]
    """Makes an optax optimizer from the rate."""
    rate: optax.Schedule | float
    """Learning rate at each update."""
    epochs: Count
    loss: Loss = CROSS_ENTROPY
    """Gives a loss for each image, from logits [B, K] and targets [B, K], which add up to 1."""
    augment: Augment | None = None
    mix: Mix | None = None
    """Blends images and targets of a batch, as mixup does."""
    outliers: Share = 0.0
    """Outlier exposure (Hendrycks et al. 2019): the share of examples to replace by a background
    without an object, with a uniform target. Without backgrounds it does nothing."""
    class_weights: Float[np.ndarray, " K"] | None = None
    added: Share = 0.0
    """The share of an epoch's examples to draw from images that corrections added (`--labels`), at
    least."""
    pseudo_labels: Share = 0.5
    """The share of images without labels (`--unlabelled`) to train on, in each class that a first
    network gives them (data/unlabelled.py)."""
    resize: Sequence[tuple[float, float]] = ()
    """Progressive resizing (Howard 2018; Tan and Le 2021): shares of the epochs, in order, and the
    factor on the side of their images. The epochs after them have whole images, as the test has.
    `[(0.6, 0.5)]`: half the side, so about a quarter of the work, in the first 60 % of epochs."""
    average: Fraction = 0.0
    """Decay of a moving average of the variables, which is evaluated in their place; 0: none."""
    per_example: bool = False
    """The logits of an image do not depend on the other images of a batch. CPUs then work on parts
    of a batch that fit in their caches."""
    layout: devices.Layout = devices.replicated
    """How several devices hold the state: `devices.replicated` or `devices.fsdp`."""
    handed_on: nn.Module | None = None
    """The network to test and bundle, with the same variables; None: `model`."""
    evidence: float = 1.0
    """Weight of the evidence of gear added to the logits; see evaluation/no_gear/evidence.py."""
    features: Frozen | None = None
    """The frozen backbone below `model`."""
    first: "Recipe | None" = None
    """A recipe with `features` to train first; this one starts from its network."""

    def __post_init__(self) -> None:
        """Raises: UsageError: the network or the optimizer is of another kind, or a number is
        outside its range.
        """
        if not isinstance(self.model, nn.Module):
            raise UsageError(
                f"model={type(self.model).__name__}: not a Flax Linen module (wrap an NNX module "
                "with flax.nnx.bridge.to_linen)"
            )
        if not callable(self.optimizer):
            raise UsageError(
                "optimizer: not a function of the rate, such as `lambda rate: optax.adam(rate)`"
            )
        for name, value, reason in out_of_range(self):
            raise UsageError(f"{name}={value}: {reason}")

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the update number."""
        return self.rate if callable(self.rate) else optax.constant_schedule(self.rate)

    @property
    def scales(self) -> list[float]:
        """The factor on the side of the images of each epoch; empty: all are whole.

        Raises:
            UsageError: a share or a factor is not between 0 and 1, no epoch has whole images, or
                the recipe trains on features.
        """
        if self.resize and self.features is not None:
            raise UsageError("resize: this recipe trains on features, which have no size")
        scales, end = [], 0.0
        for share, scale in self.resize:
            end += share
            if not (share > 0 and 0 < scale <= 1 and end < 1):
                raise UsageError(
                    f"resize={list(self.resize)}: shares and factors must be above 0, factors at "
                    "most 1, and the sum of shares below 1"
                )
            scales += [scale] * (round(end * self.epochs) - len(scales))
        scales = scales[: self.epochs - 1]
        return scales and scales + [1.0] * (self.epochs - len(scales))

    @property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer."""
        tx = self.optimizer(self.schedule)
        if isinstance(tx, optax.MultiSteps):
            tx = tx.gradient_transformation()
        return optax.with_extra_args_support(tx)

    def network(self) -> nn.Module:
        """The whole network to test and bundle, from images to logits."""
        if self.handed_on is not None:
            return self.handed_on
        return self.model if self.features is None else self.features.network(self.model)

    def network_variables(self, variables: PyTree) -> PyTree:
        """The variables of `network`, from those of `model`."""
        return variables if self.features is None else self.features.variables(variables)

    def model_variables(self, variables: PyTree) -> PyTree:
        """The variables of `model`, from those of `network`."""
        return variables if self.features is None else self.features.trained(variables)

    @property
    def features_of(self) -> Callable[[Split], Float[np.ndarray, "N D"]] | None:
        """Computes the inputs of the last layer from cached features; None: none are pooled."""
        pooled = self.features is not None and self.features.below == FROZEN
        return self.features.tested if pooled else None


Make = Callable[[Any, Data], Recipe]


def recipe_from(make: Make, config: Any, data: Data) -> Recipe:
    """The recipe that `make` returns.

    Raises:
        UsageError: no recipe, or class weights of other classes.
    """
    recipe = make(config, data)
    if not isinstance(recipe, Recipe):
        name = getattr(make, "__name__", "recipe")
        raise UsageError(f"{name}: returns {type(recipe).__name__}, not a Recipe")
    for stage in filter(None, (recipe.first, recipe)):
        shape = np.shape(stage.class_weights)
        if stage.class_weights is not None and shape != (data.classes,):
            raise UsageError(
                f"class_weights: {list(shape)}, not [{data.classes}], one for each class"
            )
    return recipe


def source_of(make: Make) -> str:
    """The text of the file that defines a recipe; in a notebook, the text of the function."""
    try:
        return Path(inspect.getsourcefile(make)).read_text(encoding="utf-8")
    except (OSError, TypeError, UnicodeDecodeError):
        try:
            return inspect.getsource(make)
        except (OSError, TypeError):
            return ""
