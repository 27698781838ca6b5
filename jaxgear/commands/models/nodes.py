"""Predictions for many files: in this process, or on the nodes of a cluster."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxgear.bundle import Bundle
from jaxgear.cluster import Cluster
from jaxgear.prediction.predictor import Prediction, Predictor, predict_files

BATCHES = 8  # of a task on a node


def predictions(
    bundle: Bundle,
    files: list[Any],
    batch_size: int,
    *,
    crops: int | None,
    describe: bool,
    predictor: Predictor | None = None,
) -> Iterator[Prediction]:
    """Yields the predictions of files (`predict_files`), or those of their crops of gear.

    Args:
        crops: at most this many of each file; None: classify whole files.
    """
    if crops is None:
        options = {"describe": describe, "predictor": predictor}
        yield from predict_files(bundle, files, batch_size, **options)
        return
    # Imported here: Flax and scipy.ndimage take 0.3 s, a seventh of `predict` of one picture.
    from jaxgear.prediction.proposals.cropping import predict_crops

    for cropped in predict_crops(bundle, files, crops, batch_size, describe=describe):
        yield from cropped.predictions


def with_addresses(found: Iterator[Prediction], addresses: dict[str, str]) -> Iterator[Prediction]:
    """Predictions of files, under the addresses of which they are copies (`local_copies`)."""
    for prediction in found:
        for place, address in addresses.items():
            if prediction.path.startswith(place):
                prediction = replace(prediction, path=address + prediction.path[len(place) :])
                break
        yield prediction


def predictions_on(
    address: str,
    model: Path,
    files: list[Any],
    batch_size: int,
    *,
    accept: float | None,
    crops: int | None,
    describe: bool,
) -> Iterator[Prediction]:
    """`predictions` by the bundle in `model`, in the same batches, on the cluster at `address`."""
    batch_size = min(batch_size, 1 << max(0, len(files) - 1).bit_length())
    step = BATCHES * batch_size
    tasks = [files[start : start + step] for start in range(0, len(files), step)]
    shared = (str(model), accept, batch_size, crops, describe)
    with Cluster(address) as cluster:
        for results in cluster.map(_predict, tasks, *shared, whole_nodes=True):
            yield from results


def _predict(
    files: list[Any],
    model: str,
    accept: float | None,
    batch_size: int,
    crops: int | None,
    describe: bool,
) -> list[Prediction]:
    """A task of a node."""
    bundle, predictor = _loaded(model, accept, batch_size)
    options = {"crops": crops, "describe": describe, "predictor": predictor}
    return list(predictions(bundle, files, batch_size, **options))


@functools.lru_cache(1)
def _loaded(model: str, accept: float | None, batch_size: int) -> tuple[Bundle, Predictor]:
    """The bundle and its compiled program, once in each process."""
    bundle = Bundle.load(model)
    bundle = bundle if accept is None else bundle.accepting(accept)
    return bundle, Predictor(bundle, batch_size)
