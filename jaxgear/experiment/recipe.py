"""What an experiment decides, as plain data: `recipe(config, data) -> Recipe`.

A recipe names a network, an optimizer with its rate, augmentation and loss. Making one reads no
image and trains nothing, so a test, a benchmark or a notebook can take it apart, or change a field
with `dataclasses.replace`. `jaxgear.experiment` trains it.

The network is any Flax Linen module; one of Flax NNX goes through `nnx.bridge.to_linen`. A layer
that behaves otherwise in training takes `train`, `deterministic` or `use_running_average`. The
network is handed on as a program (StableHLO), so commands need none of your code. The optimizer is
any optax expression: 57 optimizers and wrappers are tested to resume to the bit. What cannot be
trained or handed on is named before the first step.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import optax
from jaxtyping import Float

from jaxgear.data.augment import Augment, Bank, Mix, backgrounds
from jaxgear.machine import devices
from jaxgear.models.features import Frozen
from jaxgear.training.steps import Loss, smoothed_cross_entropy

CROSS_ENTROPY = smoothed_cross_entropy(0.0)


@dataclass(frozen=True)
class Data:
    """What a recipe may know of the images that it is for."""

    counts: tuple[int, ...]  # training images of each class
    batch_size: int
    bank: Bank | None = None  # backgrounds; None: there are none

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)

    def steps(self, epochs: int) -> int:
        """Optimizer steps in so many epochs."""
        return epochs * -(-sum(self.counts) // self.batch_size)

    def backgrounds(self, probability: float, **options: float) -> Augment:
        """Puts objects before backgrounds, the last of a chain; see `data.backgrounds`."""
        return backgrounds(self.bank, probability, **options)

    def class_weights(self, power: float) -> Float[np.ndarray, " K"]:
        """Loss weights ~ class frequency ** -power, 1 on average over the training images.

        0 weighs all images alike, 1 makes classes count alike.
        """
        counts = np.array(self.counts, np.float64)
        weights = counts**-power
        return np.float32(weights * counts.sum() / (weights * counts).sum())


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and how."""

    model: nn.Module
    """Any Flax network from images (float32 [B, S, S, 3], RGB, 0 to 255) to logits [B, K]. With
    `features`, from those."""
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]
    """Given the rate, an optax optimizer."""
    rate: optax.Schedule | float
    """Learning rate at each update."""
    epochs: int
    loss: Loss = CROSS_ENTROPY
    augment: Augment | None = None
    mix: Mix | None = None
    """Blends images and targets of a batch, as mixup does."""
    outliers: float = 0.0
    """Share of examples replaced by a background without an object, whose target is the same for
    all classes (outlier exposure, Hendrycks et al. 2019); where there are backgrounds."""
    class_weights: Float[np.ndarray, " K"] | None = None
    average: float = 0.0
    """Decay of a moving average of the variables, which is then evaluated; 0: none is kept."""
    per_example: bool = False
    """No image's logits depend on another's in the batch: CPUs then work on parts that fit their
    caches."""
    layout: devices.Layout = devices.replicated
    """Where the state lies on several devices; or `devices.fsdp`."""
    handed_on: nn.Module | None = None
    """The network that is tested and handed on, with the same variables; None: `model`."""
    evidence: float = 1.0
    """Weight of the evidence of gear beside the logits; see evaluation/no_gear/evidence.py."""
    features: Frozen | None = None
    """Feature layers below `model`, which are never trained."""
    first: "Recipe | None" = None
    """A recipe with `features` to train before this one, which starts from its network."""

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the update."""
        return self.rate if callable(self.rate) else optax.constant_schedule(self.rate)

    @property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer."""
        tx = self.optimizer(self.schedule)
        if isinstance(tx, optax.MultiSteps):
            tx = tx.gradient_transformation()
        return optax.with_extra_args_support(tx)

    def network(self) -> nn.Module:
        """The whole network that is tested and handed on, from images to logits."""
        if self.handed_on is not None:
            return self.handed_on
        return self.model if self.features is None else self.features.network(self.model)


Make = Callable[[Any, Data], Recipe]


def source_of(make: Make) -> str:
    """The text of the file that a recipe is written in; of a notebook, of the function."""
    try:
        return Path(inspect.getsourcefile(make)).read_text(encoding="utf-8")
    except (OSError, TypeError, UnicodeDecodeError):
        try:
            return inspect.getsource(make)
        except (OSError, TypeError):
            return ""
