"""The thing people hand on: a trained network with everything that its predictions depend on.

    model/bundle.json            version, ordered classes, preprocessing, temperature,
                                 fingerprint of the data, versions of the software
    model/network.stablehlo      the network as a program without weights (program/stablehlo.py)
    model/maps.stablehlo         where it looked, as a program (models/grad_cam.py), if it has one
    model/weights.safetensors    params/..., batch_stats/... and other collections
    model/pictures.safetensors   hash and split of every image of the data (data/splits/known.py)

`Bundle.load` takes that folder, or the run folder around it. Nothing in it is Python or pickled.
"""

import hashlib
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from jaxgear.data.splits import KnownPictures
from jaxgear.errors import CheckpointError, UsageError, first_line
from jaxgear.files import from_json, read_regular, write_bytes, write_json
from jaxgear.program import LIMIT, Program, Weights
from jaxgear.text import printable

VERSION = 4
OLDER = 3  # whose network is described in the card (models/spec.py)
CARD, WEIGHTS, PICTURES = "bundle.json", "weights.safetensors", "pictures.safetensors"
NETWORK, MAPS = "network.stablehlo", "maps.stablehlo"
CARD_LIMIT, WEIGHTS_LIMIT = 2**20, 2**30  # bytes; a ResNet-152 has 0.24 GB
MAX_SIZE = 2048  # pixels
LAYOUT = "letterbox on white, RGB, uint8"  # what data/images/decode.py does


@dataclass(frozen=True)
class Bundle:
    """A network, its weights, how pictures become its input, and logits probabilities."""

    program: Program
    weights: Weights  # numpy arrays by name, as "params/head/kernel"
    classes: tuple[str, ...]  # in the order of the logits
    size: int  # pictures are letterboxed to size x size (data/images/decode.py)
    temperature: float  # of the softmax; fitted on validation (evaluation/calibration.py)
    fingerprint: str  # of the data set
    pictures: KnownPictures  # of the data set, all splits
    versions: dict[str, str]  # of the software that trained it
    about: dict[str, Any]  # epoch, validation figures: for people
    accept_from: float | None = None  # least `score` of a picture of gear; None: all are accepted
    # Of validation pictures, "plain" and "pasted": the scores below which 0, 1, ... 100 % lie.
    gear_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    maps: bytes | None = None  # the program of models/grad_cam.py
    network: str = ""  # its layers, for people

    def probs(self, logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
        """Calibrated class probabilities, float32: softmax(logits / temperature)."""
        if not np.isfinite(logits).all():
            raise CheckpointError("the model's output is not finite: its weights are of no use")
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def score(self, logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
        """How much each picture looks like gear: its largest logit (Hendrycks et al. 2022, "Scaling
        Out-of-Distribution Detection for Real-World Settings").

        Networks that were trained with backgrounds have evidence of gear in all logits alike
        (evaluation/no_gear/evidence.py). scripts/not_gear.py compares this with other scores.
        """
        return logits.max(axis=1).astype(np.float64)

    def refuses(self, score: float) -> bool:
        """Whether a picture with that score is taken for none of the classes."""
        return self.accept_from is not None and bool(score < self.accept_from)

    def accepting(self, share: float) -> "Bundle":
        """The bundle with the threshold by which `share` of pasted validation pictures are gear.

        Raises:
            UsageError: it keeps no scores of pasted pictures.
        """
        if "pasted" not in self.gear_scores:
            raise UsageError(
                "--accept: the model keeps no scores of gear on backgrounds; train it with "
                "--backgrounds"
            )
        scores = self.gear_scores["pasted"]
        least = np.interp(1 - share, np.linspace(0, 1, len(scores)), scores)
        return replace(self, accept_from=float(least))

    def accepted_shares(self) -> dict[str, float]:
        """The share of validation pictures of each kind that is taken for gear."""
        least = -math.inf if self.accept_from is None else self.accept_from
        return {
            kind: 1 - float(np.interp(least, scores, np.linspace(0, 1, len(scores))))
            for kind, scores in self.gear_scores.items()
        }

    def split_of(self, sha256: str) -> str | None:
        """The split (train, val, test, left_out) that a file with this sha256 (hex) was on."""
        return self.pictures.split_of(sha256)

    def save(self, folder: Path) -> None:
        """Writes the files, each complete or not at all; the card, which holds the hashes, last."""
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
            "gear_scores": {kind: list(scores) for kind, scores in self.gear_scores.items()},
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
        folder = Path(path)
        if (folder / "model" / CARD).is_file():
            folder = folder / "model"
        try:
            card = from_json(read_regular(folder / CARD, CARD_LIMIT))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: neither a run nor a bundle ({CARD} is missing)"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise CheckpointError(f"{folder / CARD}: cannot be read ({reason})") from error
        jax.devices()  # that a platform is not there is no fault of the bundle
        try:
            return cls._from_card(card, folder)
        except (MemoryError, ImportError):
            raise
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {first_line(error)}") from error
        except KeyError as error:
            raise CheckpointError(
                f"{folder}: not a valid bundle (no {first_line(error)} in it)"
            ) from error
        except Exception as error:  # hostile fields make networks and parsers raise anything
            raise CheckpointError(
                f"{folder}: not a valid bundle ({type(error).__name__}: {first_line(error)})"
            ) from error

    @classmethod
    def _from_card(cls, card: dict[str, Any], folder: Path) -> "Bundle":
        if card["version"] not in (VERSION, OLDER):
            raise CheckpointError(
                f"version {str(card['version'])[:20]} of {CARD}, this jaxgear reads {OLDER} and "
                f"{VERSION}; use the jaxgear that wrote it, or train again"
            )
        if card["preprocessing"]["layout"] != LAYOUT:
            raise CheckpointError(f"unknown preprocessing {card['preprocessing']['layout']!r}")
        size = card["preprocessing"]["size"]
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise ValueError(f"pictures of {size!r} pixels, at most {MAX_SIZE} are read")
        weights = load_safetensors(_read(folder, WEIGHTS, card, WEIGHTS_LIMIT))
        for name, leaf in weights.items():
            if not np.isfinite(leaf).all():
                raise ValueError(f"{name} is not finite")
        if card["version"] == OLDER:
            from jaxgear.models.spec import from_spec

            program, maps, network = *_older(from_spec(card["model"]), size), ""
        else:
            data = _read(folder, NETWORK, card, LIMIT)
            head = card["head"]
            program = Program.deserialize(data, None if head is None else str(head))
            maps = _read(folder, MAPS, card, LIMIT) if MAPS in card["sha256"] else None
            network = str(card["network"])
        bundle = cls(
            program=program,
            weights=weights,
            classes=_classes(card["classes"]),
            size=size,
            temperature=float(card["temperature"]),
            fingerprint=str(card["fingerprint"]),
            pictures=KnownPictures.from_arrays(
                load_safetensors(_read(folder, PICTURES, card, WEIGHTS_LIMIT))
            ),
            versions={name: str(value) for name, value in card["versions"].items()},
            about=dict(card["about"]),
            accept_from=None if card["accept_from"] is None else float(card["accept_from"]),
            gear_scores=_gear_scores(card.get("gear_scores", {})),
            maps=maps,
            network=network,
        )
        if bundle.accept_from is not None and not math.isfinite(bundle.accept_from):
            raise ValueError(f"accept_from {bundle.accept_from}")
        if not 1e-6 < bundle.temperature < 1e6:
            raise ValueError(f"temperature {bundle.temperature}")
        for name in ("classes", "fingerprint", "versions"):
            if not getattr(bundle, name):
                raise ValueError(f"{name} is empty")
        bundle._check_leaves()
        return bundle

    def _check_leaves(self) -> None:
        """The weights are those that the program takes, and it gives one logit a class."""
        if self.program.images.shape[1:] != (self.size, self.size, 3):
            raise ValueError(f"a network of other pictures than of {self.size} pixels")
        if self.program.classes != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes for {self.program.classes} logits")
        wanted, found = (
            {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in leaves.items()}
            for leaves in (self.program.shapes, self.weights)
        )
        differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if differing:
            raise ValueError(f"weights do not fit the network: {', '.join(differing[:5])}")


def _older(model: Any, size: int) -> tuple[Program, bytes | None]:
    """The programs of a network that an older bundle describes."""
    from jaxgear.models.grad_cam import map_program
    from jaxgear.program.apply import init

    images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    try:
        variables = jax.eval_shape(lambda x: init(model, jax.random.key(0), x), images)
        return Program.of(model, variables, size), map_program(model, variables, size)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # whatever a network makes of layers that do not fit
        raise ValueError(f"the network cannot run: {first_line(error)}") from error


def _read(folder: Path, name: str, card: dict[str, Any], limit: int) -> bytes:
    """A file of the bundle, which must be the one that the card was written with."""
    try:
        data = read_regular(folder / name, limit)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != card["sha256"][name]:
        raise CheckpointError(f"{name} differs from the sha256 in {CARD}")
    return data


def _gear_scores(scores: Any) -> dict[str, tuple[float, ...]]:
    """Ascending finite numbers of each kind."""
    found = {}
    for kind in ("plain", "pasted"):
        if kind in scores:
            values = np.array(scores[kind], np.float64)
            if values.shape != (101,) or not (np.diff(values) >= 0).all() or np.isnan(values).any():
                raise ValueError(f"gear_scores of {kind} are not 101 ascending numbers")
            found[kind] = tuple(values.tolist())
    return found


def _classes(names: Any) -> tuple[str, ...]:
    """Names that can be told apart and printed."""
    sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not sound or len(set(names)) < len(names):
        raise ValueError("classes are not a list of different names")
    if any(name != printable(name) or not name for name in names):
        raise ValueError("a class without a name, or with control characters in it")
    return tuple(names)
