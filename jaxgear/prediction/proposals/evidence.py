"""Evidence of each class at each place of a photograph, by the network of a bundle.

A ResNet is run over the whole photograph at once (Long et al. 2015, "Fully Convolutional Networks
for Semantic Segmentation"): its head classifies every cell of the last map, which covers 32 x 32
pixels. Bundles hold programs for images of one size, so the ResNet is built again from the bundle's
description, and used only if it gives the logits of the bundle's program. Any other network
classifies windows of two sizes.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import map_coordinates

from jaxgear.models.finetune import unit_scale
from jaxgear.models.pretrained import Preprocess, ResNet
from jaxgear.models.pretrained.resnet import fold_batch_norm
from jaxgear.prediction.predictor import Predictor

FINE = 160  # cells on the longer side of the evidence
_LONGER = 1280  # pixels of the longer side that a ResNet sees
_STEP = 64  # its sides are multiples of this, so that few shapes are compiled
_WINDOWS = (0.08, 0.2)  # sides of windows, of the longer side
_FIELDS = {  # fields of ResNet in the description of a bundle
    "depth": int,
    "width": int,
    "stride_in_1x1": lambda text: text == "True",
    "epsilon": float,
    "conv_bias": lambda text: text == "True",
}

Evidence = Float[np.ndarray, "h w K"]
Cells = Float[np.ndarray, "rows columns K"]
Photograph = UInt8[np.ndarray, "H W 3"]


def evidence_of(predictor: Predictor) -> Callable[[Photograph], Evidence]:
    """A function from photographs to logits at each place, the longer side in `FINE` places."""
    cells = _dense(predictor)
    if cells is None:
        return functools.partial(_by_windows, predictor)

    def evidence(photograph: Photograph) -> Evidence:
        logits = cells(_resized(photograph, _LONGER, _STEP))
        step = np.array([1 / length for length in logits.shape[:2]])
        return _at_fine(logits, step / 2, step, photograph)

    return evidence


def _by_windows(predictor: Predictor, photograph: Photograph) -> Evidence:
    """The mean over two sizes of the logits of square windows, half a window apart."""
    size = predictor.bundle.size
    maps = []
    for share in _WINDOWS:
        pixels = _resized(photograph, round(size / share), 1, size)
        step = max(1, size // 2)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(0, 1))
        windows = np.moveaxis(windows[::step, ::step], 2, -1)  # [rows, columns, S, S, 3]
        rows, columns = windows.shape[:2]
        logits = predictor.logits(windows.reshape(-1, size, size, 3)).reshape(rows, columns, -1)
        sides = np.array(pixels.shape[:2])
        maps.append(_at_fine(logits, size / 2 / sides, step / sides, photograph))
    return np.mean(maps, axis=0)


def _dense(predictor: Predictor) -> Callable[[Photograph], Cells] | None:
    """From photographs to logits of each cell, if the bundle holds a ResNet with a dense head."""
    bundle = predictor.bundle
    stored = unflatten_dict({tuple(name.split("/")): x for name, x in bundle.weights.items()})
    params, stats = stored.get("params", {}), stored.get("batch_stats", {})
    head = params.get("head")
    head = head.get("dense") if isinstance(head, dict) else None
    described = _described(bundle.network)
    if head is None or "backbone" not in params or described is None:
        return None
    if "pool" in params["backbone"]:  # attention pools the whole map, so a cell has no features
        return None
    module, preprocess = described
    variables = {"params": params["backbone"], "batch_stats": stats.get("backbone", {})}
    weights = fold_batch_norm(variables, module.epsilon), head
    module = module.clone(norm=False, conv_bias=True)

    @jax.jit
    def cells(weights: Any, pixels: Any) -> Any:
        folded, head = weights
        x = module.apply(folded, preprocess(pixels[None]), method="stages")[0]  # [h, w, D]
        return x, unit_scale(x) @ head["kernel"] + head["bias"]

    def logits_of(pixels: Photograph) -> Cells:
        return np.asarray(cells(weights, pixels)[1])

    weights = jax.device_put(weights)
    # A symmetric image, so that a network that also sees mirror images gives the same logits.
    noise = np.random.default_rng(0).integers(0, 256, (bundle.size, bundle.size, 3), np.uint8)
    image = np.maximum(noise, noise[:, ::-1])
    features = np.asarray(cells(weights, image)[0]).mean(axis=(0, 1))
    logits = np.asarray(unit_scale(features) @ head["kernel"] + head["bias"])
    same = np.allclose(logits, predictor.logits(image[None])[0], rtol=1e-2, atol=1e-2)
    return logits_of if same else None


def _described(text: str) -> tuple[ResNet, Preprocess] | None:
    """The ResNet and the preprocessing of a `FineTuned` network, from its layers as text."""
    lines = dict(re.findall(r"^ *(\w+) = (.+)$", text, re.MULTILINE))
    try:
        module = ResNet(**{name: read(lines[name]) for name, read in _FIELDS.items()})
        mean, std = (
            tuple(float(x) for x in lines[name].strip("()").split(",")) for name in ("mean", "std")
        )
        values = {"order": lines["order"].strip("'"), "scale": lines["scale"]}
        return module, Preprocess.from_json(values | {"mean": mean, "std": std})
    except (KeyError, ValueError):
        return None


def _resized(
    photograph: Photograph, longer: int, step: int, least: int = 1
) -> UInt8[np.ndarray, "h w 3"]:
    """Resized to a longer side of `longer`; sides are multiples of `step` and at least `least`."""
    height, width = photograph.shape[:2]
    scale = longer / max(height, width)
    height, width = (
        max(least, step, round(side * scale / step) * step) for side in (height, width)
    )
    image = Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _at_fine(
    logits: Cells,
    first: Float[np.ndarray, "2"],
    step: Float[np.ndarray, "2"],
    photograph: Photograph,
) -> Evidence:
    """Logits at fine places by linear interpolation; `first` and `step` are fractions."""
    shape = fine_shape(photograph)
    places = [
        ((np.arange(count) + 0.5) / count - start) / by
        for count, start, by in zip(shape, first, step, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    planes = [
        map_coordinates(plane, grid, order=1, mode="nearest") for plane in np.moveaxis(logits, 2, 0)
    ]
    return np.stack(planes, axis=-1).astype(np.float32)


def fine_shape(photograph: Photograph) -> tuple[int, int]:
    """Rows and columns of the evidence of a photograph."""
    longer = max(photograph.shape[:2])
    height, width = (max(1, round(FINE * side / longer)) for side in photograph.shape[:2])
    return height, width
