"""Fine-tunes a pretrained ResNet: the second stage of experiments/transfer.py.

    python -m experiments.transfer --data FOLDER --finetune 4
    python -m experiments.transfer --data FOLDER --finetune 4 --finetune-views 4

An epoch takes one to two minutes on two CPU cores at 224 px. The second command computes the frozen
stages once, and an epoch takes a third of that: for runs that vary a rate. New views in each epoch
are better on pictures from outdoors.
"""

import dataclasses
from typing import Any

import optax

from jaxgear.experiment import Data, Recipe
from jaxgear.machine import devices
from jaxgear.models.finetune import groups


def recipe(head: Recipe, config: Any, data: Data) -> Recipe:
    """A recipe that trains the head and the stages from `config.finetune` up.

    It starts from the network of `head`, a recipe that trains the head on frozen features.
    """
    network = head.features.network(head.model, train_from=config.finetune)
    resnet = network.backbone.clone(dtype=devices.fast_dtype())
    model, features = network.clone(backbone=resnet, mirror=False), None
    if config.finetune_views:  # the frozen stages run once for each view
        model = model.clone(first=config.finetune)
        features = dataclasses.replace(
            head.features, views=config.finetune_views, below=config.finetune
        )
    steps = data.steps(config.finetune_epochs)
    return dataclasses.replace(
        head,
        first=head,
        features=features,
        model=model,
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
