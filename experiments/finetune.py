"""Fine-tuning of a pretrained ResNet, from the head that experiments/transfer.py trains.

    python -m experiments.finetune --data FOLDER

The same as `python -m experiments.transfer --finetune 4`. An epoch takes one to two minutes on two
CPU cores at 224 px.
"""

import dataclasses
from typing import Annotated

import optax

from experiments import transfer
from jaxgear import cli, devices
from jaxgear.config import Range
from jaxgear.models.finetune import groups
from jaxgear.recipe import Data, Recipe


@dataclasses.dataclass(frozen=True)
class Config(transfer.Config):
    """Fine-tune a pretrained ResNet."""

    finetune: Annotated[int, Range(1, 4, high_too=True)] = 4
    """Train from this stage up (4: the last, 1: all but the stem)."""


def recipe(config: transfer.Config, data: Data) -> Recipe:
    """The recipe of transfer.py trains the head; then the stages above `--finetune` learn too."""
    head = transfer.recipe(config, data)
    network = head.features.network(head.model, train_from=config.finetune)
    resnet = network.backbone.clone(dtype=devices.fast_dtype())
    steps = data.steps(config.finetune_epochs)
    return dataclasses.replace(
        head,
        first=head,
        features=None,
        model=network.clone(backbone=resnet, mirror=False),
        handed_on=network,  # tested in float32
        epochs=config.finetune_epochs,
        rate=optax.warmup_cosine_decay_schedule(0.0, config.finetune_lr, steps // 6, steps),
        optimizer=lambda rate: optax.partition(
            {
                "frozen": optax.set_to_zero(),
                "backbone": optax.adamw(rate, weight_decay=0.05),
                "head": optax.adamw(lambda step: 3 * rate(step), weight_decay=0.05),
            },
            lambda params: groups(params, config.finetune),
        ),
        augment=head.features.augment,
    )


if __name__ == "__main__":
    cli.run_experiment(transfer.main, Config)
