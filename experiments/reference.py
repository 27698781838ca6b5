"""The baseline: the CNN and recipe of published solutions to this task.

    python -m experiments.reference --data FOLDER

Seed 1 on 1,697 photographs: a test accuracy of 0.870 (results/README.md, "Robustness").
"""

import dataclasses
from pathlib import Path

import optax

from jaxgear import cli, experiment
from jaxgear.experiment import Count, Data, Positive, Recipe
from jaxgear.models.reference import ReferenceCNN


@dataclasses.dataclass(frozen=True)
class Config(experiment.Config):
    """Train the reference CNN."""

    epochs: Count = 30
    batch_size: Count = 50
    peak_lr: Positive = 0.001
    """Learning rate, the same in all steps."""


def recipe(config: Config, data: Data) -> Recipe:
    """Network, optimizer and augmentation."""
    return Recipe(
        model=ReferenceCNN(data.classes),
        per_example=True,
        epochs=config.epochs,
        rate=config.peak_lr,
        optimizer=optax.adam,
        augment=data.backgrounds(config.paste),
    )


def main(config: Config) -> Path:
    """Trains, tests once, and returns the run folder."""
    with experiment.start(config, recipe) as run:
        for _ in run.epochs():
            if run.patience_exhausted:
                break
        return run.finish()


if __name__ == "__main__":
    cli.run_experiment(main, Config)
