"""The end of every experiment: saves its best model as a bundle and tests it once."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.composites import is_pasted, with_pasted
from jaxgear.data.dataset import Dataset, Split
from jaxgear.data.folder import LazyPictures, taken
from jaxgear.data.recorded import known_pictures
from jaxgear.errors import UsageError
from jaxgear.evaluation import calibration, metrics
from jaxgear.evaluation.no_gear import evidence, refusal
from jaxgear.files import read_json, write_json
from jaxgear.machine import devices
from jaxgear.models.grad_cam import map_program
from jaxgear.prediction import Predictor
from jaxgear.program import Program, flat
from jaxgear.training import history
from jaxgear.training.runs.environment import environment
from jaxgear.training.runs.run import Run

BLOCK = 64  # images: a multiple of the batches in which features and logits are computed
KINDS = {"set": "of the set", "added": "added by --labels", "pasted": "pasted on backgrounds"}


class HandedOn:
    """The parts of a bundle that do not depend on the weights, made before training."""

    def __init__(self, model: Any, variables: PyTree, size: int, classes: int):
        """Exports a Flax network; of `variables` only the shapes matter.

        Raises:
            UsageError: the network cannot be exported, or does not give `classes` logits.
        """
        self._model, self._size = model, size
        self._shapes = jax.eval_shape(lambda: variables)
        self.program = Program.of(model, self._shapes, size)
        if self.program.classes != classes:
            raise UsageError(
                f"network {type(model).__name__}: gives {self.program.classes} logits, not "
                f"{classes}, one per class"
            )
        self.network = str(model)[:100_000]  # for people
        self._maps: Future[bytes | None] | None = None

    def make_maps(self) -> None:
        """Starts making `maps` on another thread while the network trains."""
        if self._maps is None:
            pool = ThreadPoolExecutor(1)
            self._maps = pool.submit(map_program, self._model, self._shapes, self._size)
            pool.shutdown(wait=False)

    @property
    def maps(self) -> bytes | None:
        """The Grad-CAM program (models/grad_cam.py), or None."""
        self.make_maps()
        return self._maps.result()


def conclude(
    run: Run,
    row: history.Row,
    dataset: Dataset,
    handed_on: HandedOn,
    variables: PyTree,
    features_of: Callable[[Split], np.ndarray] | None = None,
    bank: UInt8[Array, "M T T 3"] | None = None,
    share: float = 1.0,
    test: bool = True,
) -> Path:
    """Saves the model of `row`, the best epoch, as a bundle, tests it, and returns the run folder.

    Nothing else reads test images. Writes `model/`, `test.json`, then `confusion.png` and
    `predictions.png`, and prints the last line. Only the first host writes; all of them evaluate a
    part of the images each. Collective.

    With a `bank` of backgrounds the model gets evidence of gear (evaluation/no_gear/evidence.py),
    weighed by `share`. The temperature is then fitted on plain and pasted validation images, and
    the threshold of gear on the pasted ones.

    Args:
        features_of: computes the inputs of the model's last layer faster than its program; or None.
        test: False only saves the bundle, and leaves the test split closed.
    """
    # Imported here: matplotlib takes 0.2 s, and `--help` should not wait for it.
    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots import tiles

    figures = [run.path / "confusion.png", run.path / "predictions.png"]
    before, done, first = None, False, devices.first_host()
    if test and run.tested and not run.trained:
        before = read_json(run.path / "test.json")
        if before["epoch"] != row.epoch:  # training went on since and was interrupted
            before = None
        else:
            done = all(figure.exists() for figure in figures)
    if devices.highest(int(first and done)):
        return _announce(run, before) if first else run.path
    if sentence := history.overfitting(run.rows):
        print(sentence)
    bundle, logits_of, validation = _bundle(
        run, row, dataset, handed_on, flat(variables), features_of, bank, share
    )
    if first:
        bundle.save(run.path / "model")
    devices.highest(0)  # a barrier: the test split opens when the model is there
    if not test:
        print(f"{run.path}\tvalidation accuracy {row.val_accuracy:.4f}", flush=True)
        return run.path
    split = dataset.test_split(run.path)
    logits = logits_of(split)
    if not first:
        return run.path
    summary = before
    if summary is None:
        summary = metrics.summarise(logits, split.labels, dataset.classes, bundle.temperature)
        summary |= {"epoch": row.epoch} | refusal.acceptance(bundle, logits)
        splits = [*map(bundle.split_of, split.sha256)]
        summary["by_side"] = metrics.by_split(logits, split.labels, splits)
        if dataset.folder.added:
            summary["validation"] = validation
        write_json(run.path / "test.json", summary)  # before figures, which may fail
    caption = (
        f"test accuracy {summary['accuracy']:.4f} ({summary['n']} pictures), epoch {row.epoch}"
    )
    plots.save(plots.confusion(summary["confusion"], dataset.classes, caption), figures[0])
    plots.save(plots.grid(tiles.test_tiles(bundle, split, logits), caption), figures[1])
    return _announce(run, summary)


def _bundle(
    run: Run,
    row: history.Row,
    dataset: Dataset,
    handed_on: HandedOn,
    weights: dict[str, Any],
    features_of: Callable[[Split], np.ndarray] | None,
    bank: UInt8[Array, "M T T 3"] | None,
    share: float,
) -> tuple[Bundle, Callable[[Split], np.ndarray], dict[str, dict[str, Any]]]:
    """The bundle, calibrated on validation, the fastest function from a split to its logits, and
    the metrics of each kind of validation image.
    """
    program, head = handed_on.program, handed_on.program.head
    val = with_pasted(dataset.split("val"), dataset.folder, bank)
    if bank is not None and head is not None:
        features_of = features_of or evidence.of_splits(program, weights)
    if features_of is not None:
        features_of = shared(features_of)
    if bank is not None and head is not None:
        weights = evidence.fitted(weights, head, dataset, bank, features_of, share)
    bundle = Bundle(
        program=program,
        weights={name: np.asarray(leaf) for name, leaf in weights.items()},
        classes=dataset.classes,
        size=dataset.size,
        temperature=1.0,
        fingerprint=dataset.folder.fingerprint,
        pictures=known_pictures(dataset),
        versions=environment()["versions"],
        about={"run": run.path.name} | _finite(dataclasses.asdict(row)),
        maps=handed_on.maps,
        network=handed_on.network,
    )
    if features_of is None:
        predictor = Predictor(bundle)
        logits_of = shared(lambda split: predictor.logits(split.images))
    else:
        logits_of = lambda split: evidence.logits_of(weights, head, features_of(split))  # noqa: E731
    logits = logits_of(val)
    bundle = dataclasses.replace(
        bundle, temperature=calibration.fit_temperature(logits, val.labels)
    )
    if bank is not None:
        plain, pasted = np.split(bundle.score(logits), 2)
        scores = {
            name: tuple(np.quantile(values, np.linspace(0, 1, 101)).tolist())
            for name, values in (("plain", plain), ("pasted", pasted))
        }
        bundle = dataclasses.replace(bundle, gear_scores=scores).accepting(refusal.ACCEPTED)
    kinds = [_kind(path, dataset) for path in val.names]
    return bundle, logits_of, metrics.by_group(logits, val.labels, kinds, KINDS)


def shared(rows_of: Callable[[Split], np.ndarray]) -> Callable[[Split], np.ndarray]:
    """`rows_of`, a row for each image of a split, with the images divided among the hosts.

    A part is whole blocks of `BLOCK` images, so its batches, and the rows to the bit, are those of
    one host. Collective: every host must call it.
    """

    def rows(split: Split) -> np.ndarray:
        hosts, count = jax.process_count(), len(split.labels)
        if hosts == 1 or not count:
            return rows_of(split)
        blocks = -(-count // BLOCK)
        bounds = [min(count, BLOCK * (blocks * part // hosts)) for part in range(hosts + 1)]
        sizes = np.diff(bounds).tolist()
        begin, size = bounds[jax.process_index()], sizes[jax.process_index()]
        made = rows_of(part_of(split, begin, max(1, size)))[:size]
        padding = [(0, max(sizes) - size), *[(0, 0)] * (made.ndim - 1)]
        parts = devices.from_all(np.pad(made, padding))
        return np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)])

    return rows


def part_of(split: Split, begin: int, size: int) -> Split:
    """`size` images of a split from row `begin` on; lazy ones stay lazy."""
    begin = min(begin, len(split.labels) - size)
    images, rows = split.images, np.arange(begin, begin + size)
    if isinstance(images, LazyPictures):
        taken_images = LazyPictures(
            (size, *images.shape[1:]), lambda row: split.images[begin + row]
        )
    else:
        taken_images = images[begin : begin + size]
    return Split(taken_images, split.labels[rows], taken(split.records, rows))


def _kind(path: str, dataset: Dataset) -> str:
    return "pasted" if is_pasted(path) else "added" if path in dataset.folder.added else "set"


def _finite(row: dict[str, float | None]) -> dict[str, float | None]:
    """The figures that a row has. NaN, an unknown rate, becomes None: JSON has no NaN."""
    known = {name: value for name, value in row.items() if value is not None}
    return {name: value if np.isfinite(value) else None for name, value in known.items()}


def _announce(run: Run, summary: dict[str, Any]) -> Path:
    low, high = summary["interval95"]
    if kinds := summary.get("validation"):
        figures = (f"{f['n']} {KINDS[kind]} {f['accuracy']:.4f}" for kind, f in kinds.items())
        print(f"validation accuracy: {', '.join(figures)}")
    print(
        f"best epoch {summary['epoch']}: macro-F1 {summary['macro_f1']:.4f}, "
        f"95 % interval of the accuracy {low:.4f} to {high:.4f}"
    )
    print(f"{run.path}\ttest accuracy {summary['accuracy']:.4f}", flush=True)
    return run.path
