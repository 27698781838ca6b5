"""Converts ResNet tensors of other frameworks to ours.

It uses every source tensor exactly once, fills every leaf of the network, and checks shapes and
that numbers are finite. Otherwise an error lists the names.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxgear.errors import CheckpointError
from jaxgear.models.pretrained.files import Source
from jaxgear.models.pretrained.resnet import DEPTHS, STAGES, Preprocess, ResNet, imagenet
from jaxgear.models.pretrained.tables import LAYOUTS, TABLES, Table


@dataclass(frozen=True)
class Converted:
    """Arrays by our paths (`params/conv1/kernel`), and the network that they fit."""

    flat: dict[str, np.ndarray]  # a tensor without a rule keeps its own name, for `graft`
    module: ResNet
    preprocess: Preprocess
    origin: str
    called: dict[str, str] = field(default_factory=dict)  # our path -> the source's name


def convert(source: Source, path: Path) -> Converted:
    """Finds the table that fits the names, renames and transposes; `path` is for messages."""
    table = max(TABLES, key=lambda table: sum(bool(rename(n, table)) for n in source.tensors))
    flat: dict[str, np.ndarray] = {}
    called: dict[str, str] = {}
    known = 0
    for name, array in source.tensors.items():
        if any(re.fullmatch(pattern, name) for pattern in table.ignored):
            continue
        ours, layout = rename(name, table) or (name, "as is")
        known += ours != name
        if ours in flat:
            raise CheckpointError(f"{path}: {called[ours]!r} and {name!r} are the same tensor")
        axes = LAYOUTS[layout]
        flat[ours] = array.transpose(axes) if axes and array.ndim == len(axes) else array
        called[ours] = name
    if not known:
        names = ", ".join(repr(name[:80]) for name in list(source.tensors)[:3])
        raise CheckpointError(f"{path}: no known names of ResNet tensors ({names}, ...)")
    module, preprocess = _describe(flat, table, source, path)
    return Converted(flat, module, preprocess, f"{path.name}, {table.name} names", called)


def rename(name: str, table: Table) -> tuple[str, str] | None:
    """Our path and the layout of a source tensor, by its name; None if the table lacks it."""
    for pattern, ours, layout in table.rules:
        if match := re.fullmatch(pattern, name):
            groups = match.groupdict()
            if "stage" in groups:
                stage = int(groups["stage"]) - table.first_stage + 1
                layer = f"layer{stage}_{_count(groups['unit'], table.first_unit)}"
                conv = _count(groups.get("conv", "1"), table.first_conv) + 1
                ours = ours.format(layer=layer, conv=conv)
            return ours, layout
    return None


def _count(text: str, first: int) -> int:
    """The index from 0 that `text` stands for: a number from `first` on, a letter, or `b12`."""
    if text.isdecimal():
        return int(text) - first
    return int(text[1:]) if text[1:] else ord(text) - ord("a")


def _describe(
    flat: dict[str, np.ndarray], table: Table, source: Source, path: Path
) -> tuple[ResNet, Preprocess]:
    """The network that the tensors fit, from names, shapes and the source's description."""
    units = [0] * STAGES
    for name in flat:
        if match := re.match(r"params/layer([1-4])_(\d+)/", name):
            stage, unit = int(match[1]) - 1, int(match[2])
            units[stage] = max(units[stage], unit + 1)
    bottleneck = any("/conv3/" in name for name in flat)
    depths = [d for d, shape in DEPTHS.items() if shape == (bottleneck, tuple(units))]
    if not depths:
        name = "bottleneck" if bottleneck else "basic"
        known = ", ".join(map(str, DEPTHS))
        raise CheckpointError(f"{path}: {name} units {units} in its stages: no ResNet of {known}")
    pool = pool_fields(flat)
    stem = flat.get("params/conv3/kernel" if pool else "params/conv1/kernel")
    module = ResNet(
        depth=depths[0],
        width=stem.shape[-1] if stem is not None and stem.ndim == 4 else 64,
        stride_in_1x1=table.stride_in_1x1,
        epsilon=table.epsilon,
        momentum=table.momentum,
        conv_bias="params/conv1/bias" in flat,
        **pool,
    )
    preprocess = table.preprocess
    try:
        if source.layers:
            module = module.clone(**_keras_fields(source.layers, table, path))
        if "downsample_in_bottleneck" in source.config:  # Hugging Face
            module = module.clone(stride_in_1x1=bool(source.config["downsample_in_bottleneck"]))
        if "pretrained_cfg" in source.config:  # timm
            config = source.config["pretrained_cfg"]
            mean, std = (config.get(key, getattr(preprocess, key)) for key in ("mean", "std"))
            # `from_json` checks the values.
            preprocess = Preprocess.from_json(imagenet(tuple(mean), tuple(std)).to_json())
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({error!r})") from error
    return checked(module, path), preprocess


def pool_fields(flat: dict[str, np.ndarray]) -> dict[str, int]:
    """The fields of ResNet that attention pooling determines; none without it."""
    if not any(name.startswith("params/pool/") for name in flat):
        return {}
    positions, out = (
        flat[name].shape if name in flat else ()
        for name in ("params/pool/positions", "params/pool/out/bias")
    )
    grid = math.isqrt(max(positions[0] - 1, 1)) if positions else 1
    return {"grid": grid, "embedding": out[0] if out else 1}


def _keras_fields(
    layers: dict[str, dict[str, Any]], table: Table, path: Path
) -> dict[str, bool | float]:
    """The fields of ResNet that the layers of `model.json` determine."""
    fields: dict[str, set] = {"epsilon": set(), "momentum": set(), "stride_in_1x1": set()}
    for name, layer in layers.items():
        if "epsilon" in layer:
            fields["epsilon"].add(float(layer["epsilon"]))
            fields["momentum"].add(float(layer["momentum"]))
        ours = rename(f"{name}/kernel", table)
        if ours is None or "strides" not in layer or max(layer["strides"]) == 1:
            continue
        if layer["padding"] == "same" and max(layer["kernel_size"]) > 1:
            raise CheckpointError(f"{path}: {name!r} pads unevenly (`same` at stride 2): not read")
        if match := re.fullmatch(r"params/layer\d_0/conv([12])/kernel", ours[0]):
            fields["stride_in_1x1"].add(match[1] == "1")
    for key, values in fields.items():
        if len(values) > 1:
            raise CheckpointError(f"{path}: layers differ in {key}: {sorted(values)}")
    return {key: values.pop() for key, values in fields.items() if values}


def checked(module: ResNet, path: Path) -> ResNet:
    """`module`, if its fields are possible; else CheckpointError."""
    sound = module.depth in DEPTHS and 1 <= module.width <= 4096
    if module.grid:  # a head of attention has 64 channels, and there are 32 for each of `width`
        sound = sound and DEPTHS[module.depth][0] and module.width % 2 == 0
    if not sound or not 0 < module.epsilon < 1 or not 0 <= module.momentum < 1:
        fields = f"depth {module.depth}, width {module.width}, epsilon {module.epsilon}"
        raise CheckpointError(f"{path}: {fields}, momentum {module.momentum}: no ResNet has these")
    return module


def graft(
    flat: dict[str, np.ndarray], module: ResNet, called: dict[str, str], path: Path
) -> dict[str, np.ndarray]:
    """`flat` as float32, if it fits `module` and at most one head exactly.

    Raises:
        CheckpointError: tensors are missing, unknown, of the wrong shape, not floating point, not
            finite, or a variance is negative. The message uses the source's names, from `called`.
    """
    blank = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    wanted = jax.eval_shape(module.init, jax.random.key(0), blank)
    shapes = {"/".join(key): leaf.shape for key, leaf in flatten_dict(wanted).items()}
    if "head/kernel" in flat or "head/bias" in flat:
        features = module.width * 8 * (4 if DEPTHS[module.depth][0] else 1)
        classes = flat.get("head/bias", flat.get("head/kernel")).shape[-1:]
        shapes |= {"head/kernel": (features, *classes), "head/bias": classes}
    both = {name: flat[name] for name in sorted(shapes.keys() & flat.keys())}
    floats = {n: a for n, a in both.items() if jnp.issubdtype(a.dtype, jnp.floating)}
    grafted = {name: np.asarray(array, np.float32) for name, array in floats.items()}

    def name_of(ours: str) -> str:
        return called.get(ours, ours)[:120]

    problems = {
        "missing": shapes.keys() - flat.keys(),
        "unknown": flat.keys() - shapes.keys(),
        "of the wrong shape": [
            f"{name_of(n)} {a.shape} for {shapes[n]}"
            for n, a in both.items()
            if a.shape != shapes[n]
        ],
        "not floating point": [name_of(n) for n in both if n not in floats],
        "not finite": [name_of(n) for n, a in grafted.items() if not np.isfinite(a).all()],
        "a negative variance": [
            name_of(n) for n, a in grafted.items() if n.endswith("/var") and (a < 0).any()
        ],
    }
    lines = [f"{problem}: {_list(names)}" for problem, names in problems.items() if names]
    if lines:
        raise CheckpointError(f"{path}: does not fit ResNet-{module.depth}: {'; '.join(lines)}")
    return grafted


def _list(names: Iterable[str]) -> str:
    """The first five names, printable, because they come from an untrusted file."""
    names = sorted(names)
    shown = ", ".join(name[:160] for name in names[:5])
    shown = "".join(c if c.isprintable() else "?" for c in shown)
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
