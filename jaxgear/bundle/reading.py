"""Reads the files of a bundle and checks them: they may come from anybody."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load as load_safetensors

from jaxgear.data.splits import KnownPictures
from jaxgear.errors import CheckpointError, first_line
from jaxgear.files import from_json, read_regular
from jaxgear.program import LIMIT, Program
from jaxgear.text import printable

VERSION = 4
OLDER = 3  # its card describes the network (models/spec.py)
CARD, WEIGHTS, PICTURES = "bundle.json", "weights.safetensors", "pictures.safetensors"
NETWORK, MAPS = "network.stablehlo", "maps.stablehlo"
CARD_LIMIT, WEIGHTS_LIMIT = 2**20, 2**30  # bytes; a ResNet-152 has 0.24 GB
MAX_SIZE = 2048  # pixels
LAYOUT = "letterbox on white, RGB, uint8"  # as data/images/decode.py does


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a `Bundle`, from its folder or from a run folder around it.

    Raises:
        CheckpointError: a file or field is missing, damaged, or of another version.
    """
    folder = Path(path)
    if (folder / "model" / CARD).is_file():
        folder = folder / "model"
    try:
        card = from_json(read_regular(folder / CARD, CARD_LIMIT))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: neither a run nor a bundle ({CARD} is missing)") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"{folder / CARD}: cannot be read ({reason})") from error
    jax.devices()  # raises here if a platform is missing, which is not the bundle's fault
    try:
        return _fields(card, folder)
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


def _fields(card: dict[str, Any], folder: Path) -> dict[str, Any]:
    if card["version"] not in (VERSION, OLDER):
        raise CheckpointError(
            f"{CARD} has version {str(card['version'])[:20]}, this jaxgear reads {OLDER} and "
            f"{VERSION}; use the jaxgear that wrote it, or train again"
        )
    if card["preprocessing"]["layout"] != LAYOUT:
        raise CheckpointError(f"unknown preprocessing {card['preprocessing']['layout']!r}")
    size = card["preprocessing"]["size"]
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise ValueError(f"pictures of {size!r} pixels; the limit is {MAX_SIZE}")
    weights = load_safetensors(_read(folder, WEIGHTS, card, WEIGHTS_LIMIT))
    for name, leaf in weights.items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{name} is not finite")
    program, maps, network = _network(card, folder, size)
    fields = {
        "program": program,
        "weights": weights,
        "classes": _classes(card["classes"]),
        "size": size,
        "temperature": float(card["temperature"]),
        "fingerprint": str(card["fingerprint"]),
        "pictures": KnownPictures.from_arrays(
            load_safetensors(_read(folder, PICTURES, card, WEIGHTS_LIMIT))
        ),
        "versions": {name: str(value) for name, value in card["versions"].items()},
        "about": dict(card["about"]),
        "accept_from": None if card["accept_from"] is None else float(card["accept_from"]),
        "gear_scores": _gear_scores(card.get("gear_scores", {})),
        "maps": maps,
        "network": network,
    }
    if fields["accept_from"] is not None and not math.isfinite(fields["accept_from"]):
        raise ValueError(f"accept_from {fields['accept_from']}")
    if not 1e-6 < fields["temperature"] < 1e6:
        raise ValueError(f"temperature {fields['temperature']}")
    for name in ("classes", "fingerprint", "versions"):
        if not fields[name]:
            raise ValueError(f"{name} is empty")
    _check_fit(program, weights, size, len(fields["classes"]))
    return fields


def _check_fit(program: Program, weights: dict[str, Any], size: int, classes: int) -> None:
    """Checks that the program takes these images and weights and gives one logit per class."""
    if program.images.shape[1:] != (size, size, 3):
        raise ValueError(f"the network does not take pictures of {size} pixels")
    if program.classes != classes:
        raise ValueError(f"{classes} classes for {program.classes} logits")
    wanted, stored = (
        {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in leaves.items()}
        for leaves in (program.shapes, weights)
    )
    differing = sorted(k for k in wanted.keys() | stored.keys() if wanted.get(k) != stored.get(k))
    if differing:
        raise ValueError(f"weights do not fit the network: {', '.join(differing[:5])}")


def _network(card: dict[str, Any], folder: Path, size: int) -> tuple[Program, bytes | None, str]:
    """The programs of the network and of its maps, and its layers as text."""
    if card["version"] == OLDER:
        from jaxgear.models.spec import from_spec

        return *_older(from_spec(card["model"]), size), ""
    data = _read(folder, NETWORK, card, LIMIT)
    head = card["head"]
    program = Program.deserialize(data, None if head is None else str(head))
    maps = _read(folder, MAPS, card, LIMIT) if MAPS in card["sha256"] else None
    return program, maps, str(card["network"])


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
    except Exception as error:  # a network whose layers do not fit can raise anything
        raise ValueError(f"the network cannot run: {first_line(error)}") from error


def _read(folder: Path, name: str, card: dict[str, Any], limit: int) -> bytes:
    """The content of a file of the bundle, checked against its hash in the card."""
    try:
        data = read_regular(folder / name, limit)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != card["sha256"][name]:
        raise CheckpointError(f"{name} differs from the sha256 in {CARD}")
    return data


def _gear_scores(scores: Any) -> dict[str, tuple[float, ...]]:
    """The quantiles of plain and pasted images: 101 ascending numbers each."""
    quantiles = {}
    for name in ("plain", "pasted"):
        if name in scores:
            values = np.array(scores[name], np.float64)
            if values.shape != (101,) or not (np.diff(values) >= 0).all() or np.isnan(values).any():
                raise ValueError(f"gear_scores of {name} are not 101 ascending numbers")
            quantiles[name] = tuple(values.tolist())
    return quantiles


def _classes(names: Any) -> tuple[str, ...]:
    """Class names; all must differ and be printable."""
    sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not sound or len(set(names)) < len(names):
        raise ValueError("classes are not a list of different names")
    if any(name != printable(name) or not name for name in names):
        raise ValueError("a class name is empty or has control characters")
    return tuple(names)
