"""Features, or maps of frozen stages: computed once per image and view, and cached.

View 0 is the image itself. The other views are augmented with keys made from the image's content,
so a view does not depend on the data set. Cache entries are keyed by weights, preprocessing, image
and view; a missing or damaged entry is computed again.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key, Num, PyTree

from jaxgear.cache import Entries
from jaxgear.data.composites import program_sha256
from jaxgear.data.dataset import Split
from jaxgear.data.folder import LazyPictures, LazyRecords, Record, empty_shared
from jaxgear.errors import GearError, UsageError
from jaxgear.machine.memory import free_memory
from jaxgear.models.finetune import (
    FROZEN,
    FineTuned,
    Head,
    unit_scale,
    upper_variables,
    whole_variables,
)
from jaxgear.models.pretrained import MODULE_FIELDS, Backbone
from jaxgear.notebook.progress import bar

BATCH = 32  # one compiled shape for any number of images
Augment = Callable[[Key[Array, " B"], Float[Array, "B S S C"]], Float[Array, "B S S 3"]]


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen backbone whose features are computed once per image and view, and cached.

    `below` is the first stage that is trained. The maps that it reads are cached in place of pooled
    features, and `Recipe.model` must be a `FineTuned(first=below)`.
    """

    backbone: Backbone
    views: int = 1  # per training image: the image itself and augmented copies
    augment: Augment | None = None  # makes the augmented views from key and image alone
    mirror: bool = False  # predict from each image and its mirror image
    below: int = FROZEN  # 1 to 4; `FROZEN`: only the head is trained

    def __post_init__(self) -> None:
        if not 1 <= self.below <= FROZEN:
            raise UsageError(f"below={self.below}: must be a stage from 1 to {FROZEN}")

    def train(self, split: Split) -> Float[np.ndarray, "N V ..."]:
        """Features to train on; the split has masks if `augment` needs them."""
        return compute_features(self.backbone, split, self.views, self.augment, self.below)

    def plain(self, split: Split) -> Float[np.ndarray, "N ..."]:
        """Features of the images without augmentation."""
        return compute_features(self.backbone, split, below=self.below)[:, 0]

    def inputs(self, split: Split) -> Num[np.ndarray, "N ..."]:
        """What `Recipe.model` classifies: features [N, V, D], of mirror images too, or maps."""
        if self.below != FROZEN:
            return self.plain(split)
        splits = [split, mirrored(split)] if self.mirror else [split]
        return np.stack([self.plain(split) for split in splits], axis=1)

    def tested(self, split: Split) -> Float[np.ndarray, "N D"]:
        """Inputs of the dense layer of `network`: scaled; with `mirror`, the mean of both views."""
        return np.asarray(unit_scale(self.inputs(split))).mean(axis=1)

    def network(self, head: Head, **fields: Any) -> FineTuned:
        """The whole network with this head, from images to logits; see `FineTuned`."""
        return FineTuned.over(self.backbone, head, mirror=self.mirror, **fields)

    def variables(self, trained: PyTree) -> PyTree:
        """The variables of `network`, from those of the layers that are trained."""
        if self.below == FROZEN:
            return whole_variables(self.backbone, trained)
        whole = whole_variables(self.backbone, {"params": trained["params"]["head"]})
        return unflatten_dict(flatten_dict(whole) | flatten_dict(trained))

    def trained(self, variables: PyTree) -> PyTree:
        """The variables of the layers that are trained, from those of `network`."""
        if self.below == FROZEN:
            return {"params": variables["params"]["head"]}
        return upper_variables(variables, self.below)


def compute_features(
    backbone: Backbone,
    split: Split,
    views: int = 1,
    augment: Augment | None = None,
    below: int = FROZEN,
) -> Float[np.ndarray, "N V ..."]:
    """Pooled features (float32), or the maps that stage `below` reads (float16), of `views` views
    of each image. A bar shows how many views are finished.

    Args:
        backbone: runs in evaluation mode, its normalisation folded into the convolutions.
        split: letterboxed images, with masks if `augment` needs them, and their records. A record's
            sha256 is the key of the image's cache entries and the seed of its views.
        augment: makes views 1 and up.

    Raises:
        GearError: the features do not fit in memory.
    """
    images, sha256 = split.images, split.sha256
    one = jax.ShapeDtypeStruct((1, *images.shape[1:3], 3), jnp.uint8)
    features = _room(len(images), views, jax.eval_shape(_run(backbone, below), one))
    # Trace the augmentation only if there are augmented views.
    program = _sha256_of(augment, images.shape) if views > 1 else ""
    plain = _Store(backbone, images.shape[1], "", below)
    stores = [plain, *[_Store(backbone, images.shape[1], program, below)] * (views - 1)]
    missing = [
        (row, view)
        for row in range(len(images))
        for view in range(views)
        if not stores[view].get(sha256[row], view, features[row, view])
    ]
    run = _run(backbone.fold() if missing else backbone, below)
    with bar("features") as tick:
        for start in range(0, len(missing), BATCH):
            places = missing[start : start + BATCH]
            # Pad the last batch with its first image.
            rows = [row for row, _ in places] + [places[0][0]] * (BATCH - len(places))
            unique, again = np.unique(rows, return_inverse=True)  # read each image once
            view = np.array([view for _, view in places] + [0] * (BATCH - len(places)), np.int32)
            seeds = np.array([int(sha256[row][:8], 16) for row in rows], np.uint32)
            batch = _views(augment if view.any() else None, images[unique][again], seeds, view)
            for place, computed in zip(places, np.asarray(run(batch)), strict=False):
                stores[place[1]].put(sha256[place[0]], place[1], computed)
                features[place] = computed
            total = len(images) * views
            tick(total - len(missing) + start + len(places), total)
    return features


def _run(backbone: Backbone, below: int) -> Callable[[Array], Array]:
    """The function of images that `compute_features` caches."""
    if below == FROZEN:
        return backbone.features
    return functools.partial(backbone.maps, below=below)


def _room(count: int, views: int, entry: jax.ShapeDtypeStruct) -> Num[np.ndarray, "N V ..."]:
    """An array for the features of all views, each like `entry`, [1, ...]."""
    needed, free = count * views * entry.size * entry.dtype.itemsize, free_memory()
    if free is not None and needed > free:
        ways = "--image-size" if views == 1 else "--image-size, --views or --finetune-views"
        raise GearError(
            f"features of {count * views} views of pictures take {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; try a smaller {ways}"
        )
    return empty_shared((count, views, *entry.shape[1:]), entry.dtype)


def mirrored(split: Split) -> Split:
    """The mirror images of a split, with another sha256 and so their own cache entries."""

    def record(row: int) -> Record:
        original = split.records[row]
        sha256 = hashlib.sha256(f"{original.sha256} mirrored".encode()).hexdigest()
        return dataclasses.replace(original, sha256=sha256)

    images = LazyPictures(split.images.shape, lambda row: split.images[row][:, ::-1])
    return Split(images, split.labels, LazyRecords(len(images), record))


@functools.partial(jax.jit, static_argnames="augment")
def _views(augment, images, seeds, view):
    """Views of a batch as uint8, because features are defined on stored images; 0 is the image."""
    plain = images[..., :3]
    if augment is None:
        return plain
    keys = jax.vmap(lambda s, v: jax.random.fold_in(jax.random.key(s), v))(seeds, view)
    changed = augment(keys, images.astype(jnp.float32))
    changed = jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)
    return jnp.where((view == 0)[:, None, None, None], plain, changed)


def _sha256_of(augment: Augment | None, shape: tuple[int, ...]) -> str:
    """A hash of the augmentation, so that each augmentation has its own cache entries."""
    shapes = [((BATCH, *shape[1:]), jnp.uint8), ((BATCH,), jnp.uint32), ((BATCH,), jnp.int32)]
    return program_sha256(
        _views.trace(augment, *(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    )


class _Store:
    """Features of one backbone, image size and augmentation, in the user's cache folder."""

    def __init__(self, backbone: Backbone, size: int, program: str, below: int):
        """`program`: the hash of the augmentation; "": none."""
        network = [getattr(backbone.module, name) for name in MODULE_FIELDS]
        pre, kind = backbone.preprocess.to_json(), [] if below == FROZEN else [below]
        self._magic = json.dumps([backbone.sha256, pre, size, program, *network, *kind]).encode()
        name = hashlib.sha256(self._magic).hexdigest()[:16]
        self._entries = Entries(f"features/{name}")

    def get(self, sha256: str, view: int, out: Num[np.ndarray, "..."]) -> bool:
        """Reads an entry into `out`; whether there is one."""
        body, head = self._entries.read(f"{sha256}.{view}"), self._head(sha256, view)
        if body is None or not body.startswith(head) or len(body) != len(head) + out.nbytes:
            return False
        out[...] = np.frombuffer(body, out.dtype, offset=len(head)).reshape(out.shape)
        return True

    def put(self, sha256: str, view: int, entry: Num[np.ndarray, "..."]) -> None:
        self._entries.write(f"{sha256}.{view}", self._head(sha256, view) + entry.tobytes())

    def _head(self, sha256: str, view: int) -> bytes:
        return hashlib.sha256(self._magic + f"{sha256}/{view}".encode()).digest()
