"""Finds and opens prepared TensorFlow Datasets sets, from any source."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jaxgear.data.folder.names import split_of
from jaxgear.data.labels import fetched_any
from jaxgear.errors import DataError, first_line
from jaxgear.files import from_json, read_regular
from jaxgear.paths import address_failure, expanded, is_address, opened_address
from jaxgear.text import printable

INFO = "dataset_info.json"
_KNOWN = "tensorflow_datasets.core.features."


def our_split(split: str) -> str | None:
    """Our name of a TFDS split; None for other splits."""
    return split if split == "left_out" else split_of(split) or None


def newest_version(base: Path) -> Path | None:
    """The newest prepared version in the folder of a set, or None."""
    folders = {path.parent for path in base.glob(f"*/{INFO}")}
    versions = [path for path in folders if tfds.core.Version.is_valid(path.name)]
    return max(versions, key=lambda path: tfds.core.Version(path.name), default=None)


def newest_at(address: str) -> str | None:
    """The name of the newest prepared version in the folder of a set at an address, or None."""
    system, path = opened_address(address)
    try:
        found = system.glob(f"{path.rstrip('/')}/*/{INFO}")
    except Exception as error:
        raise address_failure(address, error) from error
    versions = [name for *_, name, _ in (info.split("/") for info in found)]
    versions = [name for name in versions if tfds.core.Version.is_valid(name)]
    return max(versions, key=tfds.core.Version, default=None)


def newest(source: str) -> Path:
    """The folder of the newest version of the set that "NAME[:CONFIG]@DIR" names.

    For an address as DIR it is a copy in the user's cache.
    """
    name, at, folder = source.partition("@")
    if not (name and at and folder):
        raise DataError(f"tfds:{source}: expected tfds:NAME@DIR or tfds:NAME:CONFIG@DIR")
    if is_address(folder):
        address = "/".join([folder.rstrip("/"), *name.split(":", 1)])
        version = newest_at(address)
        if version is None:
            raise DataError(f"{address}: no prepared TFDS set there")
        return fetched_any(f"{address}/{version}")
    base = Path(expanded(folder)).joinpath(*name.split(":", 1))
    newest = newest_version(base)
    if newest is None:
        configs = sorted({path.parts[-3] for path in base.glob("*/*/dataset_info.json")})
        names = ", ".join(configs)
        hint = f"; it has the configs {names}: use tfds:NAME:CONFIG@DIR" if configs else ""
        raise DataError(f"{base}: no prepared TFDS set there{hint}")
    return newest


def open_set(root: Path) -> tuple[tfds.core.DatasetBuilder, str, str]:
    """A prepared set, and the names of its image and label features."""
    _check_features(root)
    try:
        builder = tfds.builder_from_directory(root)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # TFDS and protobuf raise errors of their own
        raise DataError(f"{root}: not a readable TFDS set ({first_line(error)})") from error
    image = _feature(builder, "image", tfds.features.Image)
    return builder, image, _feature(builder, "label", tfds.features.ClassLabel)


def _check_features(root: Path) -> None:
    """Refuses a set with features from outside TFDS, because TFDS would import and run them.

    The name may refer to any module in the working directory, such as a file beside the set.
    """
    path = root / "features.json"
    if not path.is_file():
        return  # not a set; `builder_from_directory` reports that
    try:
        waiting = [from_json(read_regular(path, 2**24))]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({first_line(error)})") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("pythonClassName", "type"):
                name = value.get(key, "")
                if isinstance(name, str) and "." in name and not name.startswith(_KNOWN):
                    raise DataError(f"{path}: refused, it would import {printable(name)[:80]!r}")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def sources_of(builder: tfds.core.DatasetBuilder, image: str) -> dict[str, Any]:
    """The rows of each split that `our_split` knows, with encoded images."""
    decoders = {image: tfds.decode.SkipDecoding()}
    try:
        return {
            split: builder.as_data_source(split, decoders=decoders)
            for split in sorted(builder.info.splits)
            if our_split(split)
        }
    except NotImplementedError:
        raise DataError(
            f"{builder.data_dir}: stored as {builder.info.file_format.value}, which needs "
            'TensorFlow; prepare it again with file_format="array_record"'
        ) from None


def _feature(builder: tfds.core.DatasetBuilder, usual: str, kind: type) -> str:
    """The name of the feature of type `kind`: `usual`, or the only one of that type."""
    names = [name for name, feature in builder.info.features.items() if isinstance(feature, kind)]
    if usual in names:
        return usual
    if len(names) != 1:
        raise DataError(
            f"{builder.data_dir}: not an image classification set: {len(names)} features of kind "
            f"{kind.__name__}, none called {usual}"
        )
    return names[0]


def bytes_of(rows: Any, index: int, feature: str) -> bytes:
    """A bytes feature of a row. TFDS parses all features, which takes five times as long."""
    example = tf_example_pb2.Example.FromString(rows.data_source[index])
    return example.features.feature[feature].bytes_list.value[0]
