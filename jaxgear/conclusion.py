"""The end of every experiment: its best model is handed on, and tested once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, PyTree, UInt8

from jaxgear import devices, prediction
from jaxgear.bundle import Bundle
from jaxgear.data.dataset import Dataset, Side, some
from jaxgear.data.known import KnownPictures
from jaxgear.data.pasted import and_pasted, scene_side
from jaxgear.evaluation import calibration, evidence, metrics, refusal
from jaxgear.files import write_json
from jaxgear.training import history
from jaxgear.training.runs import Run, environment, read_json

SHOWN = 256  # training pictures, and backgrounds alone, that tell what is no gear


def conclude(
    run: Run,
    row: history.Row,
    dataset: Dataset,
    model: nn.Module,
    variables: PyTree,
    inputs_of: Callable[[Side], np.ndarray] | None = None,
    bank: UInt8[Array, "M T T 3"] | None = None,
    evidence_weight: float = 1.0,
) -> Path:
    """Hands on the model of `row`, the best epoch, and tests it: all that reads test pictures.

    Writes `model/`, `test.json`, `confusion.png` and `predictions.png`, and prints the last line.
    `inputs_of` is a quicker way to what the model's last layer takes than from pictures, where
    there is one. With a `bank` of backgrounds the model gets evidence of gear (evidence.py), of
    `evidence_weight`, and its temperature and the score from which a picture is gear are those of
    the validation pictures as they are and pasted, alike. The first of several hosts does it; for
    the others it is the run folder alone.
    """
    if not devices.first_host():
        return run.path
    # Not above: matplotlib takes 0.2 s, which `--help` need not wait for.
    from jaxgear.evaluation import plots, tiles

    if run.tested and not run.trained:
        before = read_json(run.path / "test.json")
        if before["epoch"] == row.epoch:  # else more epochs came since, and were cut short
            return _announce(run, before)
    if sentence := history.overfitting(run.rows):
        print(sentence)
    records = dataset.folder.records
    val = and_pasted(dataset.side("val"), dataset.folder, bank)
    layer = evidence.last_layer(model, variables, dataset.size)
    if bank is not None and layer is not None:
        inputs = inputs_of or evidence.inputs_of(model, variables)
        gear = and_pasted(some(dataset.side("train"), SHOWN), dataset.folder, bank)
        scenes = scene_side(bank, dataset.size, SHOWN)
        known = [inputs(side) for side in (gear, scenes, val)]
        variables = evidence.with_evidence(variables, layer, *known, evidence_weight)
    bundle = Bundle(
        model=model,
        variables=variables,
        classes=dataset.classes,
        size=dataset.size,
        temperature=1.0,
        fingerprint=dataset.folder.fingerprint,
        pictures=KnownPictures.of((record.sha256 for record in records), dataset.sides),
        versions=environment()["versions"],
        about={"run": run.path.name} | dataclasses.asdict(row),
    )
    if inputs_of is None:
        predictor = prediction.Predictor(bundle)
        logits_of = lambda side: predictor.logits(side.images)  # noqa: E731
    else:
        logits_of = lambda side: evidence.logits_of(variables, layer, inputs_of(side))  # noqa: E731
    logits = logits_of(val)
    bundle = dataclasses.replace(
        bundle,
        temperature=calibration.fit_temperature(logits, val.labels),
        accept_from=None if bank is None else refusal.threshold(bundle.score(logits)),
    )
    bundle.save(run.path / "model")
    test = dataset.test_side(run.path)
    logits = logits_of(test)
    summary = metrics.summarise(logits, test.labels, dataset.classes, bundle.temperature)
    summary |= {"epoch": row.epoch} | refusal.acceptance(bundle, logits)
    sides = [bundle.side_of(record.sha256) for record in test.records]
    summary["by_side"] = metrics.by_side(logits, test.labels, dataset.classes, sides)
    caption = (
        f"test accuracy {summary['accuracy']:.4f} ({summary['n']} pictures), epoch {row.epoch}"
    )
    plots.save(
        plots.confusion(summary["confusion"], dataset.classes, caption), run.path / "confusion.png"
    )
    plots.save(
        plots.grid(tiles.test_tiles(bundle, test, logits), caption),
        run.path / "predictions.png",
    )
    write_json(run.path / "test.json", summary)  # last: where it is, the run is complete
    return _announce(run, summary)


def _announce(run: Run, summary: dict[str, Any]) -> Path:
    low, high = summary["interval95"]
    print(
        f"best epoch {summary['epoch']}: macro-F1 {summary['macro_f1']:.4f}, "
        f"95 % interval of the accuracy {low:.4f} to {high:.4f}"
    )
    print(f"{run.path}\ttest accuracy {summary['accuracy']:.4f}", flush=True)
    return run.path
