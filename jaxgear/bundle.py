"""The thing people hand on: a trained network with everything that its predictions depend on.

    model/bundle.json            version, network, ordered classes, preprocessing, temperature,
                                 fingerprint of the data, versions of the software
    model/weights.safetensors    params/... and batch_stats/..., float32
    model/pictures.safetensors   hash and side of every picture of the data set (data/known.py)

`Bundle.load` takes that folder, or the run folder around it. Nothing in it is code or pickled.
"""

import dataclasses
import functools
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Float, PyTree
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from jaxgear.data.known import KnownPictures
from jaxgear.data.walk import printable
from jaxgear.errors import CheckpointError
from jaxgear.files import from_json, read_regular, write_bytes, write_json
from jaxgear.models.spec import from_spec, to_spec

VERSION = 3
CARD, WEIGHTS, PICTURES = "bundle.json", "weights.safetensors", "pictures.safetensors"
CARD_LIMIT, WEIGHTS_LIMIT = 2**20, 2**30  # bytes; a ResNet-152 has 0.24 GB
MAX_SIZE = 2048  # pixels
LAYOUT = "letterbox on white, RGB, uint8"  # what data/images.py does


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A network, its variables, how pictures become its input, and logits probabilities."""

    model: nn.Module
    variables: PyTree  # {"params", "batch_stats"}
    classes: tuple[str, ...]  # in the order of the logits
    size: int  # pictures are letterboxed to size x size (data/images.py)
    temperature: float  # of the softmax; fitted on validation (evaluation/calibration.py)
    fingerprint: str  # of the data set
    pictures: KnownPictures  # of the data set, all sides
    versions: dict[str, str]  # of the software that trained it
    about: dict[str, Any]  # epoch, validation figures: for people
    accept_from: float | None = None  # least `score` of a picture of gear; None: all are accepted

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
        (evaluation/evidence.py). scripts/not_gear.py compares this with other scores.
        """
        return logits.max(axis=1).astype(np.float64)

    def refuses(self, score: float) -> bool:
        """Whether a picture with that score is taken for none of the classes."""
        return self.accept_from is not None and bool(score < self.accept_from)

    def side_of(self, sha256: str) -> str | None:
        """The side (train, val, test, left_out) that a file with this sha256 (hex) was on."""
        return self.pictures.side_of(sha256)

    def save(self, folder: Path) -> None:
        """Writes the files, each complete or not at all; the card, which holds the hashes, last."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = traverse_util.flatten_dict(dict(self.variables), sep="/")
        files = {
            WEIGHTS: save_safetensors({name: np.asarray(leaf) for name, leaf in flat.items()}),
            PICTURES: save_safetensors(self.pictures.to_arrays()),
        }
        card = {
            "version": VERSION,
            "model": to_spec(self.model),
            "classes": list(self.classes),
            "preprocessing": {"size": self.size, "layout": LAYOUT},
            "temperature": self.temperature,
            "accept_from": self.accept_from,
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
            reason = getattr(error, "strerror", None) or _first_line(error)
            raise CheckpointError(f"{folder / CARD}: cannot be read ({reason})") from error
        jax.devices()  # that a platform is not there is no fault of the bundle
        try:
            return cls._from_card(card, folder)
        except (MemoryError, ImportError):
            raise
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {_first_line(error)}") from error
        except KeyError as error:
            raise CheckpointError(
                f"{folder}: not a valid bundle (no {_first_line(error)} in it)"
            ) from error
        except Exception as error:  # hostile fields make networks and parsers raise anything
            raise CheckpointError(
                f"{folder}: not a valid bundle ({type(error).__name__}: {_first_line(error)})"
            ) from error

    @classmethod
    def _from_card(cls, card: dict[str, Any], folder: Path) -> "Bundle":
        if card["version"] != VERSION:
            raise CheckpointError(
                f"version {str(card['version'])[:20]} of {CARD}, this jaxgear reads {VERSION}; "
                "use the jaxgear that wrote it, or train again"
            )
        if card["preprocessing"]["layout"] != LAYOUT:
            raise CheckpointError(f"unknown preprocessing {card['preprocessing']['layout']!r}")
        bundle = cls(
            model=from_spec(card["model"]),
            variables=_unflatten(load_safetensors(_read(folder, WEIGHTS, card))),
            classes=_classes(card["classes"]),
            size=card["preprocessing"]["size"],
            temperature=float(card["temperature"]),
            fingerprint=str(card["fingerprint"]),
            pictures=KnownPictures.from_arrays(load_safetensors(_read(folder, PICTURES, card))),
            versions={name: str(value) for name, value in card["versions"].items()},
            about=dict(card["about"]),
            accept_from=None if card["accept_from"] is None else float(card["accept_from"]),
        )
        if bundle.accept_from is not None and not math.isfinite(bundle.accept_from):
            raise ValueError(f"accept_from {bundle.accept_from}")
        if not 1e-6 < bundle.temperature < 1e6:
            raise ValueError(f"temperature {bundle.temperature}")
        if type(bundle.size) is not int or not 1 <= bundle.size <= MAX_SIZE:
            raise ValueError(f"pictures of {bundle.size!r} pixels, at most {MAX_SIZE} are read")
        for name in ("classes", "fingerprint", "versions"):
            if not getattr(bundle, name):
                raise ValueError(f"{name} is empty")
        bundle._check_leaves()
        return bundle

    def _check_leaves(self) -> None:
        """The weights are those of the network: names, shapes, and one logit a class."""
        pictures = jax.ShapeDtypeStruct((1, self.size, self.size, 3), np.uint8)
        init = functools.partial(self.model.init_with_output, jax.random.key(0), train=False)
        try:
            logits, wanted = jax.eval_shape(init, pictures)
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # whatever a network makes of layers that do not fit
            raise ValueError(f"the network cannot run: {_first_line(error)}") from error
        if logits.shape != (1, len(self.classes)):
            raise ValueError(f"{len(self.classes)} classes for output of shape {logits.shape}")
        shapes = lambda tree: {  # noqa: E731
            "/".join(path): tuple(leaf.shape)
            for path, leaf in traverse_util.flatten_dict(dict(tree)).items()
        }
        wanted, found = shapes(wanted), shapes(self.variables)
        differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if differing:
            raise ValueError(f"weights do not fit the network: {', '.join(differing[:5])}")


def _read(folder: Path, name: str, card: dict[str, Any]) -> bytes:
    """A file of the bundle, which must be the one that the card was written with."""
    try:
        data = read_regular(folder / name, WEIGHTS_LIMIT)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != card["sha256"][name]:
        raise CheckpointError(f"{name} differs from the sha256 in {CARD}")
    return data


def _classes(names: Any) -> tuple[str, ...]:
    """Names that can be told apart and printed."""
    sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not sound or len(set(names)) < len(names):
        raise ValueError("classes are not a list of different names")
    if any(name != printable(name) or not name for name in names):
        raise ValueError("a class without a name, or with control characters in it")
    return tuple(names)


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0][:300])


def _unflatten(flat: dict[str, np.ndarray]) -> PyTree:
    for name, leaf in flat.items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{name} is not finite")
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return {"params": tree["params"]} | {k: v for k, v in tree.items() if k != "params"}
