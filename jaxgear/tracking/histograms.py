"""Histograms of the parameters and of how an epoch changed them, once every few epochs.

RUN/histograms.json has them, so that trackers can show them whenever they like, also after a kill:
by epoch (0 is before training) and name, such as `parameters/conv1/kernel`, `updates/conv1/kernel`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgear.files import write_json
from jaxgear.machine import devices
from jaxgear.program import Weights, flat
from jaxgear.training.history import Row
from jaxgear.training.state import TrainState

FILE = "histograms.json"
EVERY = 5  # epochs
BINS = 30
THIN = 1e-3  # half the width of a histogram of equal values
Histogram = dict[str, Any]  # the fields of `_histogram`


class Histograms:
    """Adds the histograms of a run to its folder."""

    def __init__(self) -> None:
        self._before: Weights = {}  # parameters after the last epoch, if the next is due

    def add(self, run: Path, rows: Sequence[Row], state: TrainState) -> None:
        """Adds the last epoch's histograms if due, and drops epochs that the history lacks.

        An interrupted epoch gets parameters but no updates. Collective: every host must call it.
        """
        epoch, step = (rows[-1].epoch, rows[-1].step) if rows else (0, 0)
        before, self._before = self._before, {}
        due, at_end = epoch % EVERY == 0, int(state.step) == step
        params: Weights = {}
        if at_end and (due or (epoch + 1) % EVERY == 0):
            params = _real(flat(devices.local(state.params)))
        if not devices.first_host():
            return
        kept = read(run)
        found = {number: named for number, named in kept.items() if number <= epoch}
        if due and params and epoch not in found:
            named = {f"parameters/{name}": _histogram(value) for name, value in params.items()}
            for name, value in before.items():
                named[f"updates/{name}"] = _histogram(params[name] - value)
            found[epoch] = named
        if found != kept:
            write_json(run / FILE, found)
        self._before = {} if due else params


def read(run: Path) -> dict[int, dict[str, Histogram]]:
    """The histograms of a run folder by epoch and name."""
    if not (run / FILE).exists():
        return {}
    stored = json.loads((run / FILE).read_text(encoding="utf-8"))
    return {int(epoch): named for epoch, named in stored.items()}


def _real(params: Weights) -> dict[str, Float[np.ndarray, "..."]]:
    """Copies of the parameters that are real numbers; the next step donates the originals."""
    return {
        name: np.array(value, np.float32)
        for name, value in params.items()
        if jnp.issubdtype(value.dtype, jnp.floating) and value.size
    }


def _histogram(values: Float[np.ndarray, "..."]) -> Histogram:
    """Counts of `BINS` equal bins from `low` to `high`, and sums; of the finite values."""
    # In float64, because 30 bins between two neighbours in float32 are an error.
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    # Beside bins from -0.5 to 0.5, which NumPy gives to equal values, later ones would look flat.
    reach = THIN if low == high else 0.0
    counts, edges = np.histogram(values, BINS, (low - reach, high + reach))
    return {
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "counts": counts.tolist(),
        "sum": float(values.sum()),
        "sum_squares": float((values**2).sum()),
    }
