"""Classifies crops of photographs that may hold gear."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.data import crops
from jaxgear.data.folder import Refused
from jaxgear.data.images import ImageError, load_rgb
from jaxgear.data.sources import InMemory
from jaxgear.prediction.predictor import Prediction, Predictor, predict_files
from jaxgear.prediction.proposals.boxes import distinct
from jaxgear.prediction.proposals.evidence import evidence_of
from jaxgear.prediction.proposals.propose import propose

_BATCH = 8  # so that few crops are not padded with many
OVERLAP = 0.3  # IoU above which two crops of gear show one object


@dataclass(frozen=True, eq=False)
class Cropped:
    """A photograph, and its crops that are gear; `path` of a crop is its address (data/crops)."""

    photograph: Prediction  # of the whole picture; refused if no crop is gear
    gear: tuple[Prediction, ...] = ()

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """The crops of gear, or the photograph if there are none."""
        return self.gear or (self.photograph,)


def predict_crops(
    bundle: Bundle,
    files: list[Path | Refused],
    most: int,
    batch_size: int = 64,
    *,
    describe: bool = False,
) -> Iterator[Cropped]:
    """Proposes at most `most` crops of each photograph, classifies them, and keeps those of gear.

    The bundle's threshold refuses crops as it refuses pictures. Of crops that overlap, the one with
    the highest score is kept. `describe`: as in `predict_files`.
    """
    predictor = evidence = None
    for file in files:
        path = file.path if isinstance(file, Refused) else str(file)
        try:
            if isinstance(file, Refused):
                raise ImageError(path, file.reason)
            if crops.parted(path)[1]:
                raise ImageError(path, "a crop; name its photograph")
            data = crops.read_bytes(path, path)
            photograph = load_rgb(data, path)
        except ImageError as error:
            yield Cropped(Prediction(path, error=error.reason))
            continue
        if predictor is None:
            predictor = Predictor(bundle, min(batch_size, _BATCH))
            evidence = evidence_of(predictor)
        boxes = [crops.rounded(box) for box in propose(evidence(photograph), most)[0]]
        pictures = [
            InMemory(crops.address(path, box), crops.crop(photograph, box)) for box in boxes
        ]
        pictures.insert(0, InMemory(path, data))
        whole, *found = predict_files(bundle, pictures, describe=describe, predictor=predictor)
        accepted = [i for i, crop in enumerate(found) if not crop.refused]
        kept = distinct(
            np.array(boxes).reshape(-1, 4)[accepted],
            np.array([found[i].score for i in accepted]),
            OVERLAP,
            most,
        )
        yield Cropped(replace(whole, refused=True), tuple(found[accepted[i]] for i in kept))
