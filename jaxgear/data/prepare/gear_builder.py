"""The TFDS part of writing: the features of a prepared set, and a builder for TFDS users."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxgear.data.dataset import open_dataset
from jaxgear.data.prepare.decoding.workshop import portable
from jaxgear.data.tfds.shards import NAME

FORMAT = "array_record"  # TFDS reads and writes it without TensorFlow

_DESCRIPTION = """Photographs checked, grouped by near-duplicates and split by jaxgear: no group \
straddles two of train, val and test. The split left_out has near-duplicates of pictures in other \
splits."""
_CITATION = """@misc{jaxgear,
  title = {jaxgear: photographs of outdoor gear, classified with JAX},
  note = {pictures checked, grouped and split by `python -m jaxgear prepare`},
}"""


def features(classes: Sequence[str] | None) -> tfds.features.FeaturesDict:
    """The features of a set; None: classes are set later."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=classes and list(classes)),
            "path": tfds.features.Text(),
            "sha256": tfds.features.Text(),  # of the source file
            "group": tfds.features.Text(),  # near-duplicates share one
        }
    )


def write_info(
    folder: Path,
    version: str,
    classes: Sequence[str],
    shards: dict[str, list[tuple[int, int]]],
    metadata: dict[str, Any],
) -> None:
    """Writes the metadata that makes the shards in `folder` a TFDS set; `dataset_info.json` last.

    Args:
        shards: for each split, the numbers of records and bytes of its shards, in order.
    """
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=NAME,
            version=tfds.core.Version(version),
            data_dir=str(folder),
            module_name=__name__,
        ),
        description=_DESCRIPTION,
        citation=_CITATION,
        features=features(classes),
        supervised_keys=("image", "label"),
        metadata=tfds.core.MetadataDict(**metadata),
    )
    info.set_file_format(FORMAT)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix=FORMAT
    )
    info.set_splits(
        tfds.core.splits.SplitDict(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count for count, _ in sizes],
                num_bytes=sum(size for _, size in sizes),
                filename_template=template.replace(split=split),
            )
            for split, sizes in shards.items()
        )
    )
    info.write_to_directory(folder)


class Gear(tfds.core.GeneratorBasedBuilder):
    """Builds the set of `python -m jaxgear prepare FOLDER OUT` with TFDS, in one process.

    The image folder is TFDS' `manual_dir`; nothing is downloaded:

        Gear(data_dir=OUT, file_format="array_record").download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=FOLDER))
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir is the folder of pictures, <class>/<picture>. The photographs of Adventure "
        "Works: `python -m jaxgear get gear` downloads them, or takes a zip, and checks them."
    )
    name = NAME

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            citation=_CITATION,
            features=features(None),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        dataset = open_dataset(str(dl_manager.manual_dir), size=32, seed=0, say=lambda line: None)
        self.info.features["label"].names = list(dataset.classes)
        return {
            split: self._generate_examples(dataset, split) for split in sorted(set(dataset.splits))
        }

    def _generate_examples(self, dataset: Any, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        rows = zip(dataset.folder.records, dataset.groups, dataset.splits, strict=True)
        for record, group, own in rows:
            if own == split:
                data = portable(dataset.folder.read(record), record.path)
                yield (
                    record.path,
                    {
                        "image": data,
                        "label": record.label,
                        "path": record.path,
                        "sha256": record.sha256,
                        "group": group,
                    },
                )
