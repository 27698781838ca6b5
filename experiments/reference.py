"""The CNN that published solutions of this task train, by their recipe: to measure others with.

python -m experiments.reference --data FOLDER
"""

import dataclasses
from pathlib import Path

import optax

from jaxgear import cli, experiment
from jaxgear.conclusion import conclude
from jaxgear.data.backgrounds import backgrounds
from jaxgear.models.reference import ReferenceCNN
from jaxgear.training import loop, steps
from jaxgear.training.progress import Progress


@dataclasses.dataclass(frozen=True)
class Config(experiment.Config):
    """Train the reference CNN."""

    epochs: int = 30
    batch_size: int = 50
    peak_lr: float = 0.001


def main(config: Config) -> Path:
    """Trains, tests once, and returns the run folder."""
    dataset = experiment.open_data(config)
    bank = experiment.open_backgrounds(config)
    train, val = experiment.picture_batches(config, dataset, bank)
    model = ReferenceCNN(classes=len(dataset.classes))
    schedule = optax.constant_schedule(config.peak_lr)
    tx = optax.adam(schedule)
    state = experiment.warm_start(config, steps.init_state(model, tx, val.images[:1], config.seed))
    with (
        Progress(config.epochs) as progress,
        experiment.start(config, __file__, dataset) as run,
    ):
        state = run.latest(state)
        epochs = loop.epochs(
            state,
            train,
            val,
            first=len(run.rows) + 1,
            last=config.epochs,
            schedule=schedule,
            progress=progress,
            classes=len(dataset.classes),
            loss=steps.smoothed_cross_entropy(0.0),
            microbatch=config.microbatch,
            augment=backgrounds(bank, config.paste),
        )
        state, best = run.best(experiment.follow(run, state, epochs, config.patience))
        return conclude(run, best, dataset, model, state.variables, bank=bank)


if __name__ == "__main__":
    cli.run_experiment(main, Config)
