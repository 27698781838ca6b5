"""An experiment that trains in seconds: a tiny network whose rate and channels vary."""

import dataclasses

import optax

from jaxgear import ConvNet, Recipe, cli, experiment, layers


@dataclasses.dataclass(frozen=True)
class Config(experiment.Config):
    """Train a tiny network."""

    peak_lr: experiment.Positive = 0.01
    channels: int = 4


def recipe(config, data):
    return Recipe(
        model=ConvNet([layers.Conv(config.channels), layers.GlobalPool()], data.classes),
        optimizer=lambda rate: optax.sgd(rate, momentum=0.9),
        rate=config.peak_lr,
        epochs=config.epochs,
        class_weights=data.class_weights(0.5),  # other numbers in each split
    )


def main(config):
    with experiment.start(config, recipe) as run:
        for _ in run.epochs():
            if run.patience_exhausted:
                break
        return run.finish()


if __name__ == "__main__":
    cli.run_experiment(main, Config)
