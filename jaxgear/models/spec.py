"""Builds the networks of older bundles, which describe them as JSON (bundle.json version 3).

Newer bundles hold a program (program/stablehlo.py). Only the modules named here can be built, with
fields of plain values, so an untrusted bundle can build networks and nothing else.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from jaxgear.errors import CheckpointError
from jaxgear.models import convnet, finetune, reference
from jaxgear.models.pretrained import resnet

MODULES = {
    module.__name__: module
    for module in (
        convnet.ConvNet,
        convnet.Conv,
        convnet.Residual,
        convnet.Pool,
        convnet.SpaceToDepth,
        convnet.GlobalPool,
        convnet.Dense,
        convnet.Dropout,
        finetune.FineTuned,
        finetune.Head,
        reference.ReferenceCNN,
        resnet.ResNet,
    )
}
MODULE = "module"
MOST = 1000  # modules and field values at most; a deep ConvNet has some hundred
LARGEST = 2**20  # the largest number in a field: features, windows, classes, means


def from_spec(spec: Any) -> nn.Module:
    """The network that an older bundle describes.

    Raises:
        CheckpointError: a module or field is unknown, or there are more modules, or larger numbers,
            than a network needs.
    """
    if not isinstance(spec, dict):
        raise CheckpointError("the network is not a module")
    left = [MOST]
    return _build(spec, left)


def _build(spec: Any, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise CheckpointError(f"the network has more than {MOST} parts")
    if isinstance(spec, dict):
        fields = dict(spec)
        name = fields.pop(MODULE, None)
        module = MODULES.get(name) if isinstance(name, str) else None
        if module is None:
            raise CheckpointError(f"unknown network module {str(spec.get(MODULE))[:80]!r}")
        unknown = fields.keys() - _fields(module)
        if unknown:
            raise CheckpointError(f"{spec[MODULE]} has no field {sorted(unknown)[0]!r}")
        return module(**{name: _build(value, left) for name, value in fields.items()})
    if isinstance(spec, list):
        return tuple(_build(item, left) for item in spec)
    if isinstance(spec, int | float) and abs(spec) > LARGEST:
        raise CheckpointError(f"the network has a number above {LARGEST}")
    return spec


def _fields(module: type[nn.Module]) -> list[str]:
    return [
        f.name for f in dataclasses.fields(module) if f.init and f.name not in ("parent", "name")
    ]
