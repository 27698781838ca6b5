"""Other optimizers for the network of scratch.py, each at its own best rate.

    python -m experiments.optimizers --data FOLDER --optimizer adamw
    python -m jaxgear study experiments/optimizers.py --out STUDY --data FOLDER

The second command trains each of VARIANTS with five seeds. results/README.md, "Optimizers, each at
its own best rate", has the figures.
"""

import dataclasses
import functools
from typing import Literal

import optax

from jaxgear import cli
from jaxgear.experiment import Data, Positive, Recipe
from jaxgear.training import optim

from . import scratch

# The rate that is best on validation, and its neighbours.
RATES = {
    "muon": (0.01, 0.02, 0.04),
    "adamw": (0.003, 0.006, 0.01),
    "sgd": (0.003, 0.01, 0.03),
    "lion": (0.0005, 0.001, 0.002),
}
VARIANTS = [{"optimizer": name, "peak_lr": rate} for name, rates in RATES.items() for rate in rates]


@dataclasses.dataclass(frozen=True)
class Config(scratch.Config):
    """Train the CNN of scratch.py with another optimizer."""

    optimizer: Literal["muon", "adamw", "sgd", "lion"] = "adamw"
    """Which one; each has its own learning rate and weight decay."""
    peak_lr: Positive | None = None
    """Learning rate for batches of 48; it scales with the batch. None: the best on validation."""


def recipe(config: Config, data: Data) -> Recipe:
    """The recipe of scratch.py with another optimizer and its rate."""
    muon = scratch.recipe(dataclasses.replace(config, peak_lr=1.0), data)
    optimizer = {
        "muon": muon.optimizer,
        "adamw": lambda r: optax.adamw(r, weight_decay=0.05, mask=optim.kernels),
        "sgd": lambda r: optax.chain(
            optax.add_decayed_weights(5e-4, mask=optim.kernels),
            optax.sgd(r, momentum=0.9, nesterov=True),
        ),
        "lion": lambda r: optax.lion(r, weight_decay=0.5, mask=optim.kernels),
    }[config.optimizer]
    peak_lr = RATES[config.optimizer][1] if config.peak_lr is None else config.peak_lr
    return dataclasses.replace(
        muon, optimizer=optimizer, rate=lambda update: peak_lr * muon.rate(update)
    )


if __name__ == "__main__":
    cli.run_experiment(functools.partial(scratch.main, make=recipe), Config)
