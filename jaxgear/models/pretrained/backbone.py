"""Loads pretrained ResNets of other frameworks: `load_backbone(path)`.

convert.py turns foreign names into ours; tables.py lists the names.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8
from safetensors.numpy import save

from jaxgear.errors import CheckpointError
from jaxgear.files import from_json, write_bytes
from jaxgear.models.pretrained.convert import Converted, checked, convert, graft, pool_fields
from jaxgear.models.pretrained.files import Source, read_weights
from jaxgear.models.pretrained.resnet import Preprocess, ResNet, fold_batch_norm
from jaxgear.text import printable

FORMAT = 1  # of our own .safetensors
METADATA = "jaxgear"
MODULE_FIELDS = {  # of ResNet: our own files store them, and the cache of features asks for them
    "depth": int,
    "width": int,
    "stride_in_1x1": bool,
    "epsilon": float,
    "momentum": float,
    "conv_bias": bool,
}
Images = UInt8[Array, "N H W 3"] | UInt8[np.ndarray, "N H W 3"]


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, its weights and its preprocessing."""

    module: ResNet
    variables: dict[str, Any]  # {"params", "batch_stats"}, or {"params"} when folded; float32
    head: dict[str, Array] | None  # {"kernel" [D, K], "bias" [K]}, if the file had one
    preprocess: Preprocess
    origin: str  # the source of the weights, for people
    sha256: str  # of the loaded weights (names, shapes, numbers), independent of the file format

    def features(self, images: Images) -> Float[Array, "N D"]:
        """u8 RGB images -> pooled features. Compiled once per shape of `images`."""
        return _features(self.module, self.preprocess, self.variables, images)

    def maps(self, images: Images, below: int) -> Float[Array, "N h w F"]:
        """u8 RGB images -> the maps that stage `below` reads, float16."""
        return _maps(self.module, self.preprocess, below, self.variables, images)

    def probs(self, images: Images) -> Float[Array, "N K"]:
        """u8 RGB images -> probabilities of the classes that the weights were trained on."""
        if self.head is None:
            raise CheckpointError(f"{self.origin}: these weights have no classification head")
        return _probs(self.module, self.preprocess, self.variables, self.head, images)

    def fold(self) -> "Backbone":
        """The same features, faster: folds normalisation into convolutions. Inference only."""
        if not self.module.norm:
            return self
        variables = fold_batch_norm(self.variables, self.module.epsilon)
        return replace(
            self, module=self.module.clone(norm=False, conv_bias=True), variables=variables
        )


@partial(jax.jit, static_argnames=("module", "preprocess"))
def _features(module: ResNet, preprocess: Preprocess, variables: Any, images: Any) -> Any:
    return module.apply(variables, preprocess(jnp.asarray(images)))


@partial(jax.jit, static_argnames=("module", "preprocess", "below"))
def _maps(module: ResNet, preprocess: Preprocess, below: int, variables: Any, images: Any) -> Any:
    x = preprocess(jnp.asarray(images))
    maps = module.apply(variables, x, last=below - 1, method=ResNet.stages)
    largest = jnp.finfo(jnp.float16).max
    return maps.clip(-largest, largest).astype(jnp.float16)


@partial(jax.jit, static_argnames=("module", "preprocess"))
def _probs(module: ResNet, preprocess: Preprocess, variables: Any, head: Any, images: Any) -> Any:
    x = module.apply(variables, preprocess(jnp.asarray(images)))
    return jax.nn.softmax(x @ head["kernel"] + head["bias"])


def load_backbone(path: Path) -> Backbone:
    """Loads weights with our names or those of tables.py, from a file or a model's folder.

    Raises:
        CheckpointError: the weights are incomplete or damaged; one line with the file's name.
    """
    path = Path(path)
    try:
        return _load(path)
    except CheckpointError as error:  # it may quote text of the untrusted file
        raise CheckpointError(printable(str(error))[:1400]) from error
    except MemoryError:
        raise
    except Exception as error:  # untrusted names and numbers can raise anything
        reason = printable(repr(error))[:200]
        raise CheckpointError(f"{path}: damaged, or no weights of a ResNet ({reason})") from error


def _load(path: Path) -> Backbone:
    source = read_weights(path)
    own = METADATA in source.metadata
    parts = _read_own(source, path) if own else convert(source, path)
    flat = graft(parts.flat, parts.module, parts.called, path)
    digest = _sha256(flat)
    if own and source.metadata.get("sha256") != digest:
        raise CheckpointError(f"{path}: damaged, its numbers differ from the saved sha256")
    tree = unflatten_dict({tuple(key.split("/")): jnp.asarray(a) for key, a in flat.items()})
    head = tree.pop("head", None)
    return Backbone(parts.module, tree, head, parts.preprocess, parts.origin, digest)


def _read_own(source: Source, path: Path) -> Converted:
    try:
        text = from_json(source.metadata[METADATA])
        if text["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: format {text['format']!r}; this jaxgear reads format {FORMAT}"
            )
        fields = {name: type_(text["module"][name]) for name, type_ in MODULE_FIELDS.items()}
        preprocess, origin = Preprocess.from_json(text["preprocess"]), str(text["origin"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({error!r})") from error
    module = checked(ResNet(**fields, **pool_fields(source.tensors)), path)
    return Converted(source.tensors, module, preprocess, origin)


def _sha256(flat: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(flat[name], "<f4"))
    return digest.hexdigest()


def save_backbone(backbone: Backbone, path: Path, origin: str | None = None) -> None:
    """Writes our own .safetensors with its metadata, complete or not at all."""
    if not backbone.module.norm:
        raise ValueError("a folded backbone cannot be trained; save the original backbone")
    tree = dict(backbone.variables) | ({} if backbone.head is None else {"head": backbone.head})
    flat = {"/".join(key): np.asarray(a) for key, a in flatten_dict(tree).items()}
    module = backbone.module
    description = {
        "format": FORMAT,
        "module": {name: getattr(module, name) for name in MODULE_FIELDS},
        "preprocess": backbone.preprocess.to_json(),
        "origin": origin or backbone.origin,
    }
    metadata = {METADATA: json.dumps(description), "sha256": backbone.sha256}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(flat, metadata))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error
