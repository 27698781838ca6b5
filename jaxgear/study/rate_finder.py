"""Suggests a learning rate from a short run whose rate grows exponentially (Smith 2017)."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgear.errors import UsageError
from jaxgear.experiment.assembly import prepare
from jaxgear.experiment.config import Config
from jaxgear.experiment.flags import parse
from jaxgear.experiment.recipe import Data, Make, Recipe
from jaxgear.files import write_bytes, write_text
from jaxgear.training import loop
from jaxgear.training.progress import Progress

LOW, HIGH, STEPS = 1e-6, 10.0, 200  # rate of the first and the last step
SMOOTH = 0.9  # decay of the average of losses
BLOWN = 3.0  # times the lowest loss: the sweep ends
SHARE = 0.1  # of the rate of lowest loss


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Losses of training steps whose rate grows, until they blow up."""

    rates: Float[np.ndarray, " N"]
    losses: Float[np.ndarray, " N"]
    smooth: Float[np.ndarray, " N"]

    @property
    def suggested(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest."""
        return SHARE * float(self.rates[self.smooth.argmin()])

    @property
    def reason(self) -> str:
        """Why that rate."""
        at = self.smooth.argmin()
        end = f"and the loss grows to {self.smooth[-1]:.3g} by {self.rates[-1]:.2g}"
        if at == len(self.rates) - 1:
            end = "where the sweep ends"
        return (
            f"the smoothed loss is lowest ({self.smooth[at]:.3g}) at a rate of "
            f"{self.rates[at]:.2g}, {end}; a tenth of that rate is safe for a whole run"
        )


def find_rate(config: Config, make: Make, steps: int = STEPS) -> Sweep:
    """Trains `steps` steps of a recipe at rates from `LOW` to `HIGH`.

    Raises:
        UsageError: the optimizer does not use the recipe's rate.
    """

    def rate(update):
        return LOW * (HIGH / LOW) ** (jnp.minimum(update, steps - 1) / (steps - 1))

    def swept(config: Config, data: Data) -> Recipe:
        return dataclasses.replace(make(config, data), rate=rate)

    training = prepare(config, swept)
    losses: list[float] = []
    low = np.inf
    sent = loop.losses(training.state, training.train, Progress(quiet=True), training.step_options)
    for _, loss in zip(range(steps), sent, strict=False):
        losses.append(loss)
        low = min(low, smoothed(losses)[-1])
        if not np.isfinite(loss) or smoothed(losses)[-1] > BLOWN * low:
            break
    if not training.rate.used:
        raise UsageError("--find-rate: the optimizer does not use the recipe's rate")
    losses = np.array(losses)[np.isfinite(losses)]
    rates = np.array([float(rate(step)) for step in range(len(losses))])
    return Sweep(rates, losses, smoothed(losses))


def smoothed(losses: Sequence[float]) -> Float[np.ndarray, " N"]:
    """An exponential average of the losses so far, without a bias to its start (as in Adam)."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = SMOOTH * average + (1 - SMOOTH) * loss
        result.append(average / (1 - SMOOTH**count))
    return np.array(result)


def find_and_draw(module: ModuleType, flags: Sequence[str], out: Path | None) -> None:
    """Prints the suggestion for an experiment; writes OUT/rate.csv and OUT/rate.png."""
    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots import studies

    if not hasattr(module, "recipe"):
        raise UsageError(f"{module.__name__}: has no `recipe`, which --find-rate needs")
    config = parse(module.Config, flags)
    sweep = find_rate(config, module.recipe)
    out = out or Path("results/runs") / f"{module.__name__.rpartition('.')[2]}-rate"
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learning_rate", "loss", "smoothed"])
    writer.writerows(
        zip(*(a.tolist() for a in (sweep.rates, sweep.losses, sweep.smooth)), strict=True)
    )
    write_text(out / "rate.csv", text.getvalue())
    figure = studies.sweep(sweep.rates, sweep.losses, sweep.smooth, sweep.suggested, sweep.reason)
    write_bytes(out / "rate.png", plots.png(figure))
    print(sweep.reason)
    print(f"{out}\tlearning rate {sweep.suggested:.2g}")
