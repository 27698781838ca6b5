"""Tasks of scripts/bench.py that train whole epochs of a network, as training/loop.py does.

Pictures are random, lie on the device as uint8, and are shuffled each epoch. AdamW trains without
augmentation. Each epoch validates on one batch. The peer is torch_train.py beside this file.
"""

import argparse
import statistics
import sys
import time
from typing import Any

CLASSES = 12
STEPS = {"cpu": 8}  # steps an epoch; 64 on other platforms


def train_scratch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second of the network that experiments/scratch.py trains, in its precision."""
    from experiments import scratch
    from jaxgear.experiment import Data

    recipe = scratch.recipe(scratch.Config(), Data(counts=(1,) * CLASSES, batch_size=48))
    return _rate(arguments, recipe.model, arguments.batch or 48)


def finetune_resnet50(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second of a ResNet-50 and a head, all layers trained, with batch statistics."""
    from jaxgear.machine import devices
    from jaxgear.models.finetune import FineTuned, Head
    from jaxgear.models.pretrained import ResNet, imagenet

    preprocess = imagenet()
    resnet = ResNet(50, dtype=devices.fast_dtype())
    model = FineTuned(
        *(resnet, Head(CLASSES), preprocess.order),
        *(preprocess.scale, preprocess.mean, preprocess.std),
        train_from=0,
        batch_statistics=True,
    )
    return _rate(arguments, model, arguments.batch or 64)


def _rate(arguments: argparse.Namespace, model: Any, batch: int) -> dict[str, Any]:
    """Pictures a second of the median epoch, after one that compiles and warms up."""
    import jax
    import numpy as np
    import optax

    from jaxgear.data.batches import Batches
    from jaxgear.training import loop, steps
    from jaxgear.training.progress import Progress

    count = batch * STEPS.get(jax.default_backend(), 64)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, arguments.size, arguments.size, 3), np.uint8)
    train = Batches(images, rng.integers(0, CLASSES, count), batch)
    val = Batches(images[:batch], np.asarray(train.labels[:batch]), batch)
    schedule = optax.constant_schedule(1e-3)
    state = steps.init_state(model, optax.adamw(schedule), images[:1], seed=0)
    start = time.perf_counter()
    epochs = loop.epochs(
        *(state, train, val),
        last=sys.maxsize,
        schedule=schedule,
        progress=Progress(quiet=True),
        classes=CLASSES,
        loss=steps.smoothed_cross_entropy(0.1),
    )
    next(epochs)
    first = {"first_epoch_seconds": round(time.perf_counter() - start, 1)}
    times: list[float] = []
    stop = time.perf_counter() + arguments.seconds
    while time.perf_counter() < stop or len(times) < 3:
        start = time.perf_counter()
        next(epochs)
        times.append(time.perf_counter() - start)
    epochs.close()
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "images_per_second": round(count / statistics.median(times), 1),
        "dtype": getattr(model, "dtype", None) or model.backbone.dtype,
        "batch": batch,
        "device_mib": memory >> 20,
        "device": jax.devices()[0].device_kind,
    } | first
