"""Tasks of scripts/bench.py that time one step of a network repeatedly."""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

CLASSES = 12


def features_resnet50(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second through the frozen network, norms folded, preprocessing included."""
    import jax
    import jax.numpy as jnp

    from jaxgear.models.pretrained import Backbone, ResNet, imagenet

    batch = arguments.batch or 32
    images = jnp.asarray(_pictures(batch, arguments.size))
    module = ResNet(50)
    variables = module.init(jax.random.key(0), images[:1].astype(jnp.float32))
    backbone = Backbone(module, variables, None, imagenet(), "random", "0" * 64).fold()
    return _rate(lambda: backbone.features(images), batch, arguments.seconds)


def train_resnet50(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second in a forward and backward pass, with batch statistics."""
    import jax

    from jaxgear.models.pretrained import ResNet

    batch = arguments.batch or 16
    module = ResNet(50)
    images = jax.random.normal(jax.random.key(1), (batch, arguments.size, arguments.size, 3))
    variables = module.init(jax.random.key(0), images)

    @jax.jit
    def step(variables: Any) -> Any:
        def loss(params: Any) -> Any:
            current = {"params": params, "batch_stats": variables["batch_stats"]}
            features, changed = module.apply(current, images, train=True, mutable=["batch_stats"])
            return (features**2).mean(), changed

        return jax.grad(loss, has_aux=True)(variables["params"])

    return _rate(lambda: step(variables), batch, arguments.seconds)


def train_reference(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second in whole training steps of `ReferenceCNN`, with Adam."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxgear.data.batches import Batches
    from jaxgear.models.reference import ReferenceCNN
    from jaxgear.training import steps

    batch = arguments.batch or 50
    labels = np.random.default_rng(1).integers(0, CLASSES, batch)
    batches = Batches(_pictures(batch, 128), labels, batch)
    state = steps.init_state(ReferenceCNN(CLASSES), optax.adam(1e-3), batches.images[:1], 0)
    loss = steps.smoothed_cross_entropy(0.0)
    options = {"classes": CLASSES, "loss": loss, "per_example": True}
    train_step = jax.jit(functools.partial(steps.train_step, **options), donate_argnums=0)
    examples = next(batches.ordered())

    def step() -> jnp.ndarray:
        nonlocal state
        state, metrics, _ = train_step(state, examples)
        return metrics.loss

    return _rate(step, batch, arguments.seconds)


def _pictures(count: int, size: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _rate(step: Callable[[], Any], batch: int, seconds: float) -> dict[str, Any]:
    """Median pictures a second of `step`, after two calls that compile and warm up."""
    import jax

    jax.block_until_ready([step(), step()])
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(step())
        times.append(time.perf_counter() - start)
    return {"images_per_second": round(batch / statistics.median(times), 2)}
