"""Any optimizer of optax: resumes to the bit, or is refused before the first step by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxgear.data.batches import Batches
from jaxgear.errors import UsageError
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.recipe import Recipe
from jaxgear.training import loop, optim, steps
from jaxgear.training.progress import Progress
from jaxgear.training.runs.checkpoints import Checkpoints

K = 3
RATE = 0.01
contrib = optax.contrib


class Tiny(nn.Module):
    """A kernel for Muon, and a head."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (2, 2), strides=2)(x / 255))
        return nn.Dense(K)(x.mean(axis=(1, 2)))


def chained(optimizer, *before):
    return lambda rate: optax.chain(*before, optimizer(rate))


OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": lambda rate: optax.adamw(rate, mask=optim.kernels),
    "nadamw": optax.nadamw,
    "adamax": optax.adamax,
    "amsgrad": optax.amsgrad,
    "adan": optax.adan,
    "lion": optax.lion,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "adafactor": optax.adafactor,
    "adabelief": optax.adabelief,
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "rmsprop": lambda rate: optax.rmsprop(rate, momentum=0.9),
    "rprop": lambda rate: optax.rprop(RATE),
    "radam": optax.radam,
    "novograd": optax.novograd,
    "yogi": optax.yogi,
    "sm3": lambda rate: optax.sm3(RATE),
    "fromage": lambda rate: optax.fromage(RATE),
    "sign_sgd": optax.sign_sgd,
    "noisy_sgd": lambda rate: optax.noisy_sgd(rate, key=0),
    "optimistic": optax.optimistic_gradient_descent,
    "gradient noise": chained(optax.sgd, optax.add_noise(0.1, 0.5, key=0)),
    "clipping": chained(optax.adam, optax.clip_by_global_norm(0.1), optax.adaptive_grad_clip(0.1)),
    "polyak_sgd": lambda rate: optax.polyak_sgd(scaling=rate),
    "lbfgs": lambda rate: optax.lbfgs(rate, memory_size=3),
    "line search": lambda rate: optax.chain(
        optax.sgd(RATE), optax.scale_by_backtracking_linesearch(5)
    ),
    "MultiSteps": lambda rate: optax.MultiSteps(optax.adam(rate), 2),
    "apply_if_finite": lambda rate: optax.apply_if_finite(optax.adam(rate), 3),
    "partition": lambda rate: optax.partition(
        {"kernel": optax.adam(rate), "bias": optax.sgd(rate)},
        lambda params: jax.tree.map(lambda p: "kernel" if p.ndim > 1 else "bias", params),
    ),
    "inject_hyperparams": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "our muon": lambda rate: optim.muon(rate, rate, weight_decay=0.1),
    "muon": contrib.muon,
    "schedule-free": lambda rate: contrib.schedule_free(optax.adam(rate, b1=0.0), rate),
    "schedule-free sgd": lambda rate: contrib.schedule_free_sgd(RATE),
    "schedule-free adamw": lambda rate: contrib.schedule_free_adamw(RATE),
    "sophia": contrib.sophia,
    "momo": contrib.momo,
    "momo_adam": contrib.momo_adam,
    "prodigy": contrib.prodigy,
    "dadapt": contrib.dadapt_adamw,
    "dog": contrib.dog,
    "dowg": contrib.dowg,
    "cocob": lambda rate: contrib.cocob(),
    "acprop": contrib.acprop,
    "ademamix": contrib.ademamix,
    "adopt": contrib.adopt,
    "madgrad": contrib.madgrad,
    "mechanize": lambda rate: contrib.mechanize(optax.adam(rate)),
    "reduce_on_plateau": lambda rate: optax.chain(optax.adam(rate), contrib.reduce_on_plateau()),
    "SAM": lambda rate: contrib.sam(optax.sgd(rate), optax.sgd(0.05), sync_period=2),
    "opaque SAM": lambda rate: contrib.sam(
        optax.sgd(rate), optax.sgd(0.05), sync_period=2, opaque_mode=True
    ),
    "galore": lambda rate: contrib.galore(rate, rank=2),
}
QUICK = ("our muon", "MultiSteps", "schedule-free", "sophia", "opaque SAM", "lbfgs", "momo")


def rate(update):
    return RATE / (1 + 0.1 * update)


def images(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n).astype(np.int32)
    pixels = rng.integers(0, 80, (n, 4, 4, 3)) + 60 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels


TRAIN, VAL = images(20, 0), images(6, 1)  # three steps an epoch


def recipe_of(optimizer):
    return Recipe(model=Tiny(), optimizer=optimizer, rate=rate, epochs=2)


def epochs(recipe, state, first, last):
    batches = Batches(*TRAIN, 8, seed=0)
    with diagnosed(recipe, batches, K):
        yield from loop.epochs(
            state,
            batches,
            Batches(*VAL, 6),
            first=first,
            last=last,
            schedule=recipe.schedule,
            progress=Progress(quiet=True),
            classes=K,
            loss=recipe.loss,
        )


def fresh(recipe):
    with diagnosed(recipe, Batches(*TRAIN, 8), K):
        return steps.init_state(recipe.model, recipe.tx, TRAIN[0][:1], 0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in OPTIMIZERS],
)
def test_resumes_to_the_same_bits(name, tmp_path):
    recipe = recipe_of(OPTIMIZERS[name])
    straight = list(epochs(recipe, fresh(recipe), 1, 2))
    ((state, row),) = epochs(recipe, fresh(recipe), 1, 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1, row.val_loss)
    with Checkpoints(tmp_path) as checkpoints:
        state = checkpoints.restore(fresh(recipe), 1)
    ((state, row),) = epochs(recipe, state, 2, 2)
    for a, b in zip(jax.tree.leaves(raw(state)), jax.tree.leaves(raw(straight[1][0])), strict=True):
        np.testing.assert_array_equal(a, b)
    assert row.val_loss == straight[1][1].val_loss
    start = fresh(recipe).params
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), start, state.params)
    assert any(jax.tree.leaves(moved)), "it trains"


def raw(state):
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        state,
    )


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda rate: optax.lookahead(optax.sgd(rate), 5, 0.5), "^optimizer lookahead: "),
        (lambda rate: optax.adam(rate, b1="0.9"), "^optimizer "),
        (lambda rate: optax.masked(optax.sgd(rate), {"nothing": True}), "^optimizer masked: "),
    ],
)
def test_what_cannot_train_is_refused_by_name(optimizer, words):
    recipe = recipe_of(optimizer)
    with pytest.raises(UsageError, match=words) as error:
        list(epochs(recipe, fresh(recipe), 1, 1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["sgd", "apply_if_finite", "partition", "inject_hyperparams", "schedule-free"],
)
def test_the_rate_of_the_history_is_that_of_the_last_update(name):
    """Against the updates at which the schedule was really asked, seen from inside the step."""
    asked = []

    def seen(update):
        jax.debug.callback(lambda number: asked.append(int(number)), update)
        return rate(update)

    recipe = Recipe(model=Tiny(), optimizer=OPTIMIZERS[name], rate=seen, epochs=1)
    ((_, row),) = epochs(recipe_of(lambda _: recipe.tx), fresh(recipe), 1, 1)
    jax.effects_barrier()
    expected = rate(max(asked))
    assert row.learning_rate == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_schedule_free_is_evaluated_at_its_average(masked):
    """x of Defazio et al. 2024, from y = (1 - b1) z + b1 x; other parameters stay."""

    def optimizer(rate):
        free = contrib.schedule_free(optax.sgd(0.5), 0.5, b1=0.8)
        labels = lambda params: {name: "free" if "Conv" in name else "plain" for name in params}  # noqa: E731
        return optax.partition({"free": free, "plain": optax.sgd(0.5)}, labels) if masked else free

    recipe = recipe_of(optimizer)
    ((state, _),) = epochs(recipe, fresh(recipe), 1, 1)
    (free,) = optim._states(state.opt_state, contrib.ScheduleFreeState)
    y, z = state.params["Conv_0"]["kernel"], free.z["Conv_0"]["kernel"]
    x = (y - 0.2 * z) / 0.8
    assert np.abs(x - y).max() > 1e-6
    np.testing.assert_allclose(state.variables["params"]["Conv_0"]["kernel"], x, atol=1e-6)
    head = state.variables["params"]["Dense_0"]["kernel"]
    assert np.array_equal(head, state.params["Dense_0"]["kernel"]) == masked


def test_the_loss_that_optimizers_are_told_is_that_of_the_batch():
    told = []

    def update(updates, state, params=None, *, value, value_fn, grad, **_):
        told.extend([value, value_fn(params)])
        return grad, state

    spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    batch = next(Batches(*TRAIN, 20).ordered())
    state = steps.init_state(Tiny(), spy, TRAIN[0][:1], 0)
    _, metrics, _ = steps.train_step(
        state, batch, classes=K, loss=steps.smoothed_cross_entropy(0.0)
    )
    assert float(told[0]) == pytest.approx(float(metrics.loss) / 20, rel=1e-6)
    assert float(told[1]) == pytest.approx(float(told[0]), rel=1e-6)
