"""Suggests a learning rate from a short run whose rate grows exponentially (Smith 2017)."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from jaxgear.errors import UsageError
from jaxgear.experiment.assembly import prepare
from jaxgear.experiment.config import Config
from jaxgear.experiment.flags import parse
from jaxgear.experiment.recipe import Data, Make, Recipe, recipe_from
from jaxgear.files import write_bytes, write_text
from jaxgear.study.variants import Space, Variant, as_flags, describe, grid, is_search
from jaxgear.text import to_csv
from jaxgear.training import loop
from jaxgear.training.progress import Progress

LOW, HIGH, STEPS = 1e-6, 10.0, 200  # rate of the first and the last step
SMOOTH = 4  # steps; standard deviation of the Gaussian over logarithms of losses
RISEN = 1.1  # times its lowest: the loss has begun to rise
BLOWN = 3.0  # times its lowest: the sweep ends


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Losses of training steps whose rate grows, until they blow up."""

    rates: Float[np.ndarray, " N"]
    losses: Float[np.ndarray, " N"]

    @property
    def smooth(self) -> Float[np.ndarray, " N"]:
        """The losses without most of their noise; the window is centred, so nothing lags behind."""
        return np.exp(gaussian_filter1d(np.log(self.losses), SMOOTH, mode="nearest"))

    @property
    def suggested(self) -> float:
        """The highest rate before the smoothed loss has risen by a tenth: a peak for warm-up and
        decay.

        It is 0.4 to 1.7 times the best peak of four optimizers (results/README.md).
        """
        smooth = self.smooth
        lowest = smooth.argmin()
        risen = smooth[lowest:] > RISEN * smooth[lowest]
        return float(self.rates[lowest + (risen.argmax() - 1 if risen.any() else len(risen) - 1)])

    @property
    def reason(self) -> str:
        """Why that rate."""
        smooth, rates = self.smooth, self.rates
        if smooth[-1] <= RISEN * smooth.min():
            return f"the loss does not rise up to {rates[-1]:.2g}, the highest rate of the sweep"
        return (
            f"the smoothed loss is lowest ({smooth.min():.3g}) at a rate of "
            f"{rates[smooth.argmin()]:.2g}, has risen by a tenth past {self.suggested:.2g}, and "
            f"is {smooth[-1]:.3g} at {rates[-1]:.2g}"
        )


def find_rate(config: Config, make: Make, steps: int = STEPS) -> Sweep:
    """Trains `steps` steps of a recipe at rates from `LOW` to `HIGH`.

    Raises:
        UsageError: the optimizer does not use the recipe's rate, or the first loss is not finite.
    """

    def swept(config: Config, data: Data) -> Recipe:
        rate = lambda update: rate_at(update, steps)  # noqa: E731
        return dataclasses.replace(recipe_from(make, config, data), rate=rate)

    training = prepare(config, swept)
    losses = loop.losses(
        training.state, training.train, Progress(quiet=True), training.step_options
    )
    sweep = until_blown(losses, steps)
    if not training.rate.used:
        raise UsageError("--find-rate: the optimizer does not use the recipe's rate")
    return sweep


def rate_at(update: Any, steps: int) -> Any:
    """The rate of an update, from 0: it grows by the same factor in each of `steps`."""
    return LOW * (HIGH / LOW) ** (jnp.minimum(update, steps - 1) / (steps - 1))


def until_blown(losses: Iterator[float], steps: int = STEPS) -> Sweep:
    """At most `steps` losses of a sweep, until they blow up."""
    kept: list[float] = []
    for loss in itertools.islice(losses, steps):
        if not math.isfinite(loss):
            break
        kept.append(max(loss, 1e-30))
        if min(kept[-SMOOTH:]) > BLOWN * min(kept):
            break
    if not kept:
        raise UsageError("--find-rate: the loss of the first step is not finite")
    rates = np.array([float(rate_at(step, steps)) for step in range(len(kept))])
    return Sweep(rates, np.array(kept))


def find_and_draw(module: ModuleType, flags: Sequence[str], space: Space, out: Path | None) -> None:
    """Prints the suggestion for each variant of an experiment; writes OUT/rate.csv and rate.png.

    Args:
        space: fields to vary; {}: the experiment as it is.

    Raises:
        UsageError: a variant cannot be swept; the message names it.
    """
    if not hasattr(module, "recipe"):
        raise UsageError(f"{module.__name__}: has no `recipe`, which --find-rate needs")
    if is_search(space):
        raise UsageError("--vary FIELD=LOW..HIGH: --find-rate takes values, FIELD=VALUE,VALUE,...")
    configs = [
        (variant, parse(module.Config, [*flags, *as_flags(variant)])) for variant in grid(space)
    ]
    out = out or Path("results/runs") / f"{module.__name__.rpartition('.')[2]}-rate"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror})") from error
    found: list[tuple[Variant, Sweep]] = []
    for variant, config in configs:
        try:
            sweep = find_rate(config, module.recipe)
        except UsageError as error:
            if not variant:
                raise
            raise UsageError(f"variant {describe(variant)}: {error}") from error
        found.append((variant, sweep))
        _write(out, found)  # after each: the next one may fail
        print(f"{describe(variant)}: {sweep.reason}" if variant else sweep.reason)
    suggested = ", ".join(
        f"{sweep.suggested:.2g}" + (f" ({describe(variant)})" if variant else "")
        for variant, sweep in found
    )
    print(f"{out}\tlearning rate {suggested}, the peak of a schedule with warm-up and decay")


def _write(out: Path, found: Sequence[tuple[Variant, Sweep]]) -> None:
    """Writes rate.csv, with a column for each varied field, and rate.png."""
    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots import studies

    rows = [[*found[0][0], "learning_rate", "loss", "smoothed"]]
    for variant, sweep in found:
        columns = (a.tolist() for a in (sweep.rates, sweep.losses, sweep.smooth))
        rows += ([*variant.values(), *row] for row in zip(*columns, strict=True))
    write_text(out / "rate.csv", to_csv(rows))
    title = found[0][1].reason if len(found) == 1 else ""
    curves = [
        studies.Curve(
            describe(variant) if variant else "", s.rates, s.losses, s.smooth, s.suggested
        )
        for variant, s in found
    ]
    write_bytes(out / "rate.png", plots.png(studies.sweeps(curves, title)))
