"""A bundle: a trained network with everything that its predictions depend on.

    model/bundle.json            the card: version, ordered classes, preprocessing, temperature,
                                 fingerprint of the data, versions of the software
    model/network.stablehlo      the network as a program without weights (program/stablehlo.py)
    model/maps.stablehlo         its Grad-CAM, if it has one, as a program (models/grad_cam.py)
    model/weights.safetensors    params/..., batch_stats/... and other collections
    model/pictures.safetensors   hash and split of every image of the data (data/splits/known.py)

`Bundle.load` takes this folder, or the run folder around it. It holds no Python and no pickles.
"""

import hashlib
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save as save_safetensors

from jaxgear.bundle.reading import CARD, LAYOUT, MAPS, NETWORK, PICTURES, VERSION, WEIGHTS, read
from jaxgear.data.splits import KnownPictures
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.files import write_bytes, write_json
from jaxgear.notebook import Facts
from jaxgear.program import Program, Weights
from jaxgear.text import few


@dataclass(frozen=True, repr=False)
class Bundle(Facts):
    """A network, its weights, its preprocessing, and its calibration.

    >>> model = jaxgear.Bundle.load("RUN")
    >>> model.classes[:3], model.size
    (('axes', 'boots', 'carabiners'), 32)
    >>> model
    <Bundle, run: scratch-..., 12 classes: axes, boots, carabiners and 9 more, ...>
    """

    program: Program
    weights: Weights  # numpy arrays by name, as "params/head/kernel"
    classes: tuple[str, ...]  # in the order of the logits
    size: int  # images are letterboxed to size x size (data/images/decode.py)
    temperature: float  # of the softmax; fitted on validation (evaluation/calibration.py)
    fingerprint: str  # of the data set
    pictures: KnownPictures  # all images of the data set, with their splits
    versions: dict[str, str]  # of the software that trained it
    about: dict[str, Any]  # epoch and validation figures, for people
    accept_from: float | None = None  # least `score` of gear; None: accept every image
    # Quantiles of the score at 0, 1, ... 100 %, of "plain" and "pasted" validation images.
    gear_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    maps: bytes | None = None  # the Grad-CAM program of models/grad_cam.py
    network: str = ""  # the layers as text, for people

    def _facts(self) -> dict[str, str]:
        accuracy = self.about.get("val_accuracy")
        return {
            "run": str(self.about.get("run", "unknown")),
            f"{len(self.classes)} classes": few(self.classes),
            "pictures": f"{self.size} x {self.size} pixels",
            "weights": f"{sum(leaf.size for leaf in self.weights.values()):,} numbers",
            "validation accuracy": "unknown" if accuracy is None else f"{accuracy:.4f}",
            "temperature": f"{self.temperature:.3f}",
            "refuses pictures without gear": "no" if self.accept_from is None else "yes",
        }

    def probs(self, logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
        """Calibrated class probabilities, float32: softmax(logits / temperature)."""
        if not np.isfinite(logits).all():
            raise CheckpointError("the model's output is not finite: its weights are unusable")
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def score(self, logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
        """The score of gear of each image: its largest logit.

        Hendrycks et al. 2022, "Scaling Out-of-Distribution Detection for Real-World Settings".
        Networks trained with backgrounds have evidence of gear added to all logits equally
        (evaluation/no_gear/evidence.py). scripts/not_gear.py compares this with other scores.
        """
        return logits.max(axis=1).astype(np.float64)

    def refuses(self, score: float) -> bool:
        """Whether an image with this score counts as none of the classes."""
        return self.accept_from is not None and bool(score < self.accept_from)

    def accepting(self, share: float) -> "Bundle":
        """The bundle with the threshold that accepts `share` of pasted validation images as gear.

        Raises:
            UsageError: it has no scores of pasted images.
        """
        if "pasted" not in self.gear_scores:
            raise UsageError(
                "--accept: the model has no scores of gear on backgrounds; train it with "
                "--backgrounds"
            )
        scores = self.gear_scores["pasted"]
        least = np.interp(1 - share, np.linspace(0, 1, len(scores)), scores)
        return replace(self, accept_from=float(least))

    def accepted_shares(self) -> dict[str, float]:
        """The share of validation images, "plain" and "pasted", that it accepts as gear."""
        least = -math.inf if self.accept_from is None else self.accept_from
        return {
            name: 1 - float(np.interp(least, scores, np.linspace(0, 1, len(scores))))
            for name, scores in self.gear_scores.items()
        }

    def split_of(self, sha256: str) -> str | None:
        """The split (train, val, test, left_out) of the file with this sha256 (hex), or None."""
        return self.pictures.split_of(sha256)

    def save(self, folder: Path) -> None:
        """Writes the files, each complete or not at all; the card with their hashes comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            NETWORK: self.program.serialize(),
            WEIGHTS: save_safetensors({k: np.asarray(leaf) for k, leaf in self.weights.items()}),
            PICTURES: save_safetensors(self.pictures.to_arrays()),
        }
        if self.maps is not None:
            files[MAPS] = self.maps
        card = {
            "version": VERSION,
            "network": self.network,
            "head": self.program.head,
            "classes": list(self.classes),
            "preprocessing": {"size": self.size, "layout": LAYOUT},
            "temperature": self.temperature,
            "accept_from": self.accept_from,
            "gear_scores": {name: list(scores) for name, scores in self.gear_scores.items()},
            "fingerprint": self.fingerprint,
            "versions": self.versions,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "about": self.about,
        }
        for name, data in files.items():
            write_bytes(folder / name, data)
        write_json(folder / CARD, card)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bundle":
        """Reads a bundle folder, or the one in a run folder.

        Raises:
            CheckpointError: a file or field is missing, damaged, or of another version.
        """
        return cls(**read(path))
