"""The thing people hand on: a trained network with everything that its predictions depend on.

    model/bundle.json           version, network, ordered classes, picture size, data fingerprint
    model/weights.safetensors   params/... and batch_stats/..., float32

`Bundle.load` takes that folder, or the run folder around it.
"""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from jaxgear.errors import CheckpointError
from jaxgear.files import write_bytes, write_json
from jaxgear.models.spec import from_spec, to_spec

VERSION = 1
CARD, WEIGHTS = "bundle.json", "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A network, its variables, and how pictures become its input."""

    model: nn.Module
    variables: PyTree  # {"params", "batch_stats"}
    classes: tuple[str, ...]  # in the order of the logits
    size: int  # pictures are letterboxed to size x size (data/images.py)
    fingerprint: str  # of the training data
    about: dict[str, Any]  # epoch, validation figures, versions: for people

    def save(self, folder: Path) -> None:
        """Writes the two files, each complete or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = traverse_util.flatten_dict(dict(self.variables), sep="/")
        weights = save_safetensors({name: np.asarray(leaf) for name, leaf in flat.items()})
        card = {
            "version": VERSION,
            "model": to_spec(self.model),
            "classes": list(self.classes),
            "preprocessing": {"size": self.size, "layout": "letterbox on white, RGB, uint8"},
            "fingerprint": self.fingerprint,
            "sha256": hashlib.sha256(weights).hexdigest(),
            "about": self.about,
        }
        write_bytes(folder / WEIGHTS, weights)
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
            card = json.loads((folder / CARD).read_bytes())
            weights = (folder / WEIGHTS).read_bytes()
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: neither a run nor a bundle ({Path(error.filename).name} is missing)"
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: unreadable bundle ({error})") from error
        try:
            if card["version"] != VERSION:
                raise CheckpointError(
                    f"version {card['version']} of {CARD}, this jaxgear reads {VERSION}"
                )
            if hashlib.sha256(weights).hexdigest() != card["sha256"]:
                raise CheckpointError(f"{WEIGHTS} differs from the sha256 in {CARD}")
            bundle = cls(
                model=from_spec(card["model"]),
                variables=_unflatten(load_safetensors(weights)),
                classes=tuple(map(str, card["classes"])),
                size=int(card["preprocessing"]["size"]),
                fingerprint=str(card["fingerprint"]),
                about=dict(card["about"]),
            )
            bundle._check_leaves()
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: not a valid bundle ({type(error).__name__}: {_first_line(error)})"
            ) from error
        return bundle

    def _check_leaves(self) -> None:
        """The weights are those of the network: names, shapes, and one logit a class."""
        pictures = jax.ShapeDtypeStruct((1, self.size, self.size, 3), np.uint8)
        init = functools.partial(self.model.init_with_output, jax.random.key(0), train=False)
        try:
            logits, wanted = jax.eval_shape(init, pictures)
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _unflatten(flat: dict[str, np.ndarray]) -> PyTree:
    for name, leaf in flat.items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{name} is not finite")
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return {"params": tree["params"]} | {k: v for k, v in tree.items() if k != "params"}
