"""Compares ways to learn from pictures without labels, on frozen features of composites.

    python -m scripts.self_training GEAR WILD PHOTOGRAPHS [--weights FILE] [--seeds N]

The domain is `pasted` of scripts/acquisition.py. Half of the training split is trained on as it is.
The other half, pasted on photographs, is the pool. The validation split, pasted on other
photographs, is the test.
The classifier is a dense layer on features of a frozen ResNet-50 with dropout 0.2, trained by AdamW
as experiments/transfer.py trains it. Ways, for pools of several sizes:

    in each step T      the network being trained names pictures of which it is at least T sure, and
                        learns these names with dropout (FixMatch, Sohn et al. 2020, on features)
    once, T             a first network names them once, if it is at least T sure
    once, soft          the same, with its probabilities as targets
    balanced S          a first network names all; of each class the surest share S is used
                        (class-balanced self-training, Zou et al. 2018)
    balanced, 3 rounds  the same with 0.3, then 0.5, then 0.7, each by the network of before
    true labels         what the pool would teach with its labels

Then a few pictures of the pool with their labels, drawn as often as they are, or more often. Prints
the mean accuracy over seeds, the mean gain over no pool with its standard deviation, and the least
gain.
"""

import argparse
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgear.cli import exit_with
from jaxgear.data.unlabelled import surest
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.paths import path_argument
from scripts.acquisition import Labelled, Study

EPOCHS, BATCH, BESIDE = 30, 48, 24  # images of the pool beside each batch
SIZES = (48, 150, None)  # of the pool; None: all of it
Head = dict[str, jax.Array]


class Targets(NamedTuple):
    """What to learn from a pool: targets [N, K], and weights [N]."""

    targets: np.ndarray
    weights: np.ndarray


@functools.partial(jax.jit, static_argnames=("in_steps", "classes"))
def _train(base, pool, learn, rows, beside, key, weight, threshold, in_steps, classes):
    """A head after all steps; `rows` [steps, B] and `beside` [steps, U] are examples."""
    rate = optax.cosine_decay_schedule(1e-3, len(rows))
    tx = optax.adamw(rate, weight_decay=0.3)
    head = {"kernel": jnp.zeros((base.x.shape[1], classes)), "bias": jnp.zeros(classes)}

    def step(carry, given):
        head, state = carry
        own, other, number = given
        x, targets, sure = pool.x[other], learn.targets[other], learn.weights[other]
        if in_steps:
            probs = jax.nn.softmax(logits(head, x))
            targets = jax.nn.one_hot(probs.argmax(axis=1), classes)
            sure = probs.max(axis=1) >= threshold
        inputs = jnp.concatenate([base.x[own], x])
        targets = jnp.concatenate([jax.nn.one_hot(base.y[own], classes), targets])
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 0.8, inputs.shape)

        def loss(head):
            losses = optax.softmax_cross_entropy(logits(head, inputs * kept / 0.8), targets)
            return losses[:BATCH].mean() + weight * (losses[BATCH:] * sure).mean()

        updates, state = tx.update(jax.grad(loss)(head), state, head)
        return (optax.apply_updates(head, updates), state), None

    start = (head, tx.init(head))
    return jax.lax.scan(step, start, (rows, beside, jnp.arange(len(rows))))[0][0]


def logits(head: Head, x: jax.Array) -> jax.Array:
    """Logits [N, K] of features [N, D]."""
    return x @ head["kernel"] + head["bias"]


def probabilities(head: Head, x: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] of features [N, D]."""
    return np.asarray(jax.nn.softmax(logits(head, x)))


def cycled(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> np.ndarray:
    """Numbers below `count` in random order, all of them before one comes again."""
    times = math.ceil(math.prod(shape) / count)
    return np.concatenate([rng.permutation(count) for _ in range(times)])[
        : math.prod(shape)
    ].reshape(shape)


def balanced(probs: np.ndarray, share: float) -> Targets:
    """The likeliest class of the surest share of each class."""
    used = surest(probs, share).astype(np.float32)
    return Targets(hot(probs.argmax(axis=1), probs.shape[1]), used)


def hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """One-hot rows."""
    return np.eye(classes, dtype=np.float32)[labels]


class Trainer:
    """Trains heads for one split and one pool."""

    def __init__(self, base: Labelled, pool: Labelled, classes: int, seed: int):
        self.base, self.pool, self.classes = base, pool, classes
        steps = EPOCHS * math.ceil(len(base.y) / BATCH)
        rng = np.random.default_rng(seed)
        self.rows = cycled(rng, len(base.y), (steps, BATCH))
        self.beside = cycled(rng, len(pool.y), (steps, BESIDE))
        self.key = jax.random.key(seed)

    def __call__(self, learn: Targets | None = None, weight: float = 1.0, threshold: float = -1.0):
        """A head; with a threshold it names the pool in each step."""
        in_steps = threshold >= 0
        if learn is None:
            size = len(self.pool.y)
            learn = Targets(hot(self.pool.y, self.classes), np.zeros(size, np.float32))
        rest = (self.key, weight, threshold, in_steps, self.classes)
        return _train(self.base, self.pool, learn, self.rows, self.beside, *rest)

    def unlabelled(self) -> Iterator[tuple[str, Head]]:
        """A head for each way to learn from the pool without labels."""
        yield "no pool", (first := self())
        probs = probabilities(first, self.pool.x)
        for threshold in (0.6, 0.8, 0.95):
            yield f"in each step {threshold}", self(threshold=threshold)
        for threshold in (0.6, 0.8, 0.95):
            sure = (probs.max(axis=1) >= threshold).astype(np.float32)
            yield f"once, {threshold}", self(Targets(hot(probs.argmax(axis=1), self.classes), sure))
        yield "once, soft", self(Targets(probs, np.ones(len(probs), np.float32)))
        for share in (0.33, 0.5, 0.67):
            yield f"balanced {share}", self(balanced(probs, share))
        head = first
        for share in (0.3, 0.5, 0.7):
            head = self(balanced(probabilities(head, self.pool.x), share))
        yield "balanced, 3 rounds", head
        yield "true labels", self.labelled(1.0)

    def labelled(self, weight: float) -> Head:
        """A head that learns the labels of the pool too."""
        ones = np.ones(len(self.pool.y), np.float32)
        return self(Targets(hot(self.pool.y, self.classes), ones), weight)

    def shares(self) -> Iterator[tuple[str, Head]]:
        """A head for each share of an epoch that is drawn from the pool with labels."""
        yield "no pool", self()
        size = len(self.pool.y)
        natural = size / (size + len(self.base.y))
        for share in (natural, 0.2, 0.33, 0.5):
            name = "as often as they are" if share == natural else f"share {share}"
            yield name, self.labelled(share / (1 - share))


def lines(title: str, accuracies: dict[str, list[float]]) -> Iterator[str]:
    """A table of ways: accuracy by seed."""
    yield f"{title:28}accuracy   gain over no pool   least"
    base = np.array(accuracies["no pool"])
    for name, values in accuracies.items():
        gains = np.array(values) - base
        spread = gains.std(ddof=1) if len(gains) > 1 else 0.0
        gain = f"{gains.mean():+.4f} ± {spread:.4f}"
        yield f"{name:28}{np.mean(values):8.4f}   {gain}   {gains.min():+.4f}"


def main(arguments: argparse.Namespace) -> None:
    """Prints a table for each size of the pool, and one for each number of labels."""
    keep_compiled()
    study = Study(arguments.gear, arguments.wild, arguments.photographs, arguments.weights)
    scale = np.float32(study.train.x.shape[1] ** 0.5)  # to unit root mean square

    def table(title: str, size: int | None, ways) -> None:
        found: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            trial = study.trial("pasted", seed)
            base, pool, test = (Labelled(of.x * scale, of.y) for of in trial)
            pool = pool.rows(np.random.default_rng(seed).permutation(len(pool.y))[:size])
            for name, head in ways(Trainer(base, pool, len(study.classes), seed)):
                right = probabilities(head, test.x).argmax(axis=1) == test.y
                found.setdefault(name, []).append(float(right.mean()))
        print("\n".join(lines(title, found)), flush=True)

    for size in SIZES:
        table(f"{size or 'all'} without labels", size, Trainer.unlabelled)
    for size in (24, 48):
        table(f"{size} with labels", size, Trainer.shares)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gear", type=path_argument)
    parser.add_argument("wild", type=path_argument)
    parser.add_argument("photographs", type=path_argument)
    parser.add_argument("--weights", default="")
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    exit_with(lambda: main(arguments))
