"""Exports a bundle as one StableHLO file that needs only jax: no flax, jaxgear or weights file.

`jax.export` serialises the file. It takes any number of uint8 images of a fixed size and gives
calibrated probabilities; a bundle that can refuse images also gives their scores. It runs on CPU,
CUDA and TPU. A JSON card lists the classes in order and the preprocessing of a photograph.
"""

import hashlib
import importlib.metadata
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from jaxgear.bundle import Bundle
from jaxgear.errors import GearError, first_line
from jaxgear.program import PLATFORMS


def export(bundle: Bundle) -> bytearray:
    """The artefact: u8 [B, S, S, 3] RGB -> f32 [B, K] probabilities, for any B.

    A bundle that can refuse images also gives f32 [B] scores.

    Raises:
        GearError: the network cannot be exported, for example because of host callbacks.
    """
    weights = jax.tree.map(jnp.asarray, bundle.weights)

    def outputs(images):
        logits = bundle.program.logits(weights, images)
        probs = jax.nn.softmax(logits / bundle.temperature)
        return probs if bundle.accept_from is None else (probs, logits.max(axis=1))

    batch = bundle.program.batch or jax.export.symbolic_shape("batch")[0]
    shape = jax.ShapeDtypeStruct((batch, bundle.size, bundle.size, 3), jnp.uint8)
    try:
        return jax.export.export(jax.jit(outputs), platforms=PLATFORMS)(shape).serialize()
    except MemoryError:
        raise
    except Exception as error:  # a user's own network can raise anything
        raise GearError(f"this network cannot be exported: {first_line(error)}") from error


def card(bundle: Bundle, artefact: bytes | bytearray, name: str) -> dict[str, Any]:
    """The card of the artefact in the file `name`: all that its user needs to know."""
    size, refuses = bundle.size, bundle.accept_from is not None
    output = f"float32 [batch, {len(bundle.classes)}], probabilities in the order of classes"
    return {
        "artefact": name,
        "sha256": hashlib.sha256(artefact).hexdigest(),
        "format": "StableHLO, serialised by jax.export",
        "platforms": list(PLATFORMS),
        "jax": f"{jax.__version__} or newer",
        "input": f"uint8 [batch, {size}, {size}, 3], RGB, {bundle.program.batch or 'any'} batch"
        + " of 1 or more" * (bundle.program.batch is None),
        "output": output + "; float32 [batch], scores" * refuses,
        "classes": list(bundle.classes),
        "preprocessing": {
            "size": size,
            "steps": [
                "decode, upright by EXIF orientation, transparency on white, RGB",
                f"resize, bicubic with antialiasing, until the longer side has {size} pixels",
                f"centre on a white {size} x {size} square; keep 0 to 255",
            ],
        },
        "temperature": bundle.temperature,
        "score": "the largest logit; below accept_from: no gear" if refuses else None,
        "accept_from": bundle.accept_from,
        "fingerprint": bundle.fingerprint,
        "versions": bundle.versions,
        "about": bundle.about,
        "jaxgear": importlib.metadata.version("jaxgear"),
        "load": [
            "import jax.export, numpy as np, pathlib",
            f"program = jax.export.deserialize(bytearray(pathlib.Path({name!r}).read_bytes()))",
            f"images = np.zeros((1, {size}, {size}, 3), np.uint8)  # your pictures, as above",
            f"probs{', score' * refuses} = jax.jit(program.call)(images)",
            "print(probs.argmax(axis=1))  # indices into classes",
            *[f"print(score < {bundle.accept_from!r})  # no gear: none of the classes"] * refuses,
        ],
    }
