"""What training reads, as its recipe asks for: the data, backgrounds, batches and outliers."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgear.data.augment import Bank, Mix, one_of, outlier_exposure, scenes, stream
from jaxgear.data.batches import Batches
from jaxgear.data.composites import background_bank, scene_split, with_masks, with_pasted
from jaxgear.data.dataset import Dataset, Split, open_dataset, subsample
from jaxgear.data.recorded import Recorded, without_trained
from jaxgear.data.sampling import BY_INDEX, LANES, ONCE, Sampling, Shards, shards_of
from jaxgear.data.unlabelled import with_pseudo_labels, with_unlabelled
from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config
from jaxgear.experiment.recipe import Data, Recipe
from jaxgear.files import read_json
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.models.finetune import FROZEN

SCENES = 400  # backgrounds without gear whose features are cached
SCENE_BYTES = 2**26  # of all of them, at most: they are part of the compiled program


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What an experiment trains on: a set, backgrounds and devices."""

    config: Config
    dataset: Dataset
    bank: Bank | None
    mesh: Mesh | None = None  # None: all devices

    @classmethod
    def open(cls, config: Config, mesh: Mesh | None = None) -> "Inputs":
        """Opens what `config` names. Programs compiled after this are cached.

        Raises:
            DataError: as `open_dataset`.
            UsageError: a batch is larger than the training split.
        """
        keep_compiled()
        return cls(config, _open_data(config), _open_backgrounds(config), mesh)

    @property
    def facts(self) -> Data:
        """The facts about the data that a recipe may use."""
        counts, config = self.dataset.training_counts(), self.config
        return Data(counts, config.batch_size, self.bank, config.epoch_share)

    def made_of(self, recipe: Recipe) -> dict[str, str | None]:
        """Hashes of the backgrounds and of the recipe's pretrained weights; None: there are none.

        Those of weights do not depend on the format of their file.
        """
        features = recipe.features or (recipe.first and recipe.first.features)
        bank = self.bank
        return {
            "backgrounds": None if bank is None else hashlib.sha256(np.asarray(bank)).hexdigest(),
            "weights": features.backbone.sha256 if features else None,
        }

    def batches(self, recipe: Recipe) -> tuple[Batches, Batches]:
        """Training and validation batches of images or features, on the devices or streamed there.

        With backgrounds, training images have an object mask as a fourth channel, and validation
        has each image twice: plain and pasted. Images with pseudo-labels follow the training
        images. A `stored` set makes masks and composites when a batch needs them; any other set
        makes all of them at once.
        """
        dataset, bank, config = self.dataset, self.bank, self.config
        train, batches = dataset.split("train"), Batches
        if bank is not None:
            train = with_masks(train, dataset.folder)
        if dataset.unlabelled is not None:
            train = with_pseudo_labels(train, dataset)
        val = with_pasted(dataset.split("val"), dataset.folder, bank)
        images = train.images, val.images
        if recipe.features is not None:
            kind = "features" if recipe.features.below == FROZEN else "maps of the frozen stages"
            views = f"{recipe.features.views} view{'s' * (recipe.features.views != 1)}"
            print(f"{kind}: {views} of {len(train.labels)} training pictures, computed once")
            images = recipe.features.train(train), recipe.features.plain(val)
        elif dataset.stored:
            from jaxgear.data.stream import Stream

            batches = Stream
        added = np.zeros(0, bool)
        if dataset.folder.added:
            added = np.array([path in dataset.folder.added for path in train.names])
        by_index = _of_run(config, "order_by_index_above", BY_INDEX, sys.maxsize)
        lanes = _of_run(config, "shards_at_a_time", LANES, LANES)
        shards = _shards(config, dataset, train)
        in_order = ONCE if bank is not None else Sampling(shards=_shards(config, dataset, val))
        sampling = Sampling(added, recipe.added, by_index, shards, config.shuffle_window, lanes)
        return tuple(
            batches(
                *(inputs, split.labels, config.batch_size, config.seed, split.names, self.mesh),
                sampling=sampling,
                share=share,
            )
            for inputs, split, sampling, share in (
                (images[0], train, sampling, config.epoch_share),
                (images[1], val, in_order, 1.0),
            )
        )

    def mix(self, recipe: Recipe) -> Mix | None:
        """The recipe's mix, followed by outlier exposure if there are backgrounds."""
        bank = self.bank
        if bank is None or not recipe.outliers:
            return recipe.mix
        alone = scenes(bank)
        if recipe.features is not None:
            split = scene_split(bank, self.dataset.size, SCENES)
            bytes_of_one = recipe.features.plain(subsample(split, 1)).nbytes
            split = subsample(split, max(1, SCENE_BYTES // bytes_of_one))
            alone = one_of(recipe.features.plain(split))
        outliers = outlier_exposure(alone, recipe.outliers)
        if recipe.mix is None:
            return outliers
        return lambda keys, *batch: outliers(stream(keys, 2), *recipe.mix(keys, *batch))


def _open_data(config: Config) -> Dataset:
    """The set that `--data` names, checked and split by `--seed`, with images without labels."""
    dataset = open_dataset(
        config.data,
        size=config.image_size,
        seed=config.seed,
        on_bad=config.on_bad,
        group_by=config.group_by,
        labels=config.labels,
        share=(jax.process_index(), jax.process_count()),
    )
    if config.resume:
        dataset = without_trained(Recorded.read(config.resume), dataset)
    if config.batch_size > dataset.counts()["train"]:
        raise UsageError(
            f"--batch-size {config.batch_size}: larger than the training split, which has "
            f"{dataset.counts()['train']} pictures"
        )
    if config.unlabelled:
        dataset = with_unlabelled(dataset, config.unlabelled)
    return dataset.streamed(config.stream, channels=4 if config.backgrounds else 3)


def _open_backgrounds(config: Config) -> Bank | None:
    """The backgrounds that `--backgrounds` names, on the device (composites/bank.py), or None."""
    if not config.backgrounds:
        return None
    folder = None if config.backgrounds == "drawn" else Path(config.backgrounds)
    bank = background_bank(folder, config.image_size, config.seed)
    print(f"backgrounds: {len(bank)} pieces, from {config.backgrounds}")
    return jnp.asarray(bank)


def _of_run(config: Config, name: str, now: int, before: int) -> int:
    """A constant of this code, or that of the run to resume; `before` if its code had none."""
    if not config.resume:
        return now
    return read_json(Path(config.resume) / "environment.json").get(name, before)


def _shards(config: Config, dataset: Dataset, split: Split) -> Shards | None:
    """How a split is stored, if `--shuffle-window` asks to read it in sequence."""
    if not config.shuffle_window:
        return None
    if shards := shards_of(split.records, dataset.folder):
        return shards
    raise UsageError(
        f"--shuffle-window {config.shuffle_window}: needs a prepared set (--data tfds:gear@OUT) "
        "to which --labels and --unlabelled add nothing"
    )
