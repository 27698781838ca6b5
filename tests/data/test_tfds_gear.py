"""A TFDS set gives the same data as its folder; other sets can be read as well."""

import io
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pictures import empty_cache, encoded, scene, write_set
from PIL import Image

from jaxgear.data.folder.read import Folder, pixels, read_folder
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.prepare.decoding.workshop import portable
from jaxgear.data.prepare.gear_builder import Gear
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.splits.assign import assign_splits
from jaxgear.data.splits.clean import require_clean
from jaxgear.data.splits.groups import near_duplicate_groups
from jaxgear.data.tfds.read import read_tfds
from jaxgear.errors import DataError

ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6


def varied_set(root: Path) -> Path:
    """Two classes with every trait that TFDS decodes differently, and near-duplicates."""
    write_set(root, {"axes": 10, "boots": 10})
    rgba = np.dstack([scene(50), np.full((48, 64), 255, np.uint8)])
    rgba[:20, :, 3] = 0
    (root / "axes" / "hidden.png").write_bytes(encoded(rgba))
    cmyk = io.BytesIO()
    Image.fromarray(scene(51)).convert("CMYK").save(cmyk, "JPEG", quality=95)
    (root / "axes" / "cmyk.jpg").write_bytes(cmyk.getvalue())
    (root / "boots" / "turned.jpg").write_bytes(encoded(scene(52), "JPEG", exif=ORIENTED))
    (root / "boots" / "é ü.JPG").write_bytes(encoded(scene(53), "JPEG", quality=95))
    (root / "boots" / "grey.jpg").write_bytes(encoded(scene(54)[..., 0], "JPEG"))
    for k in range(6):  # near-duplicates, so that some are left out
        (root / "boots" / f"near-duplicate{k}.jpg").write_bytes(
            encoded(scene(k + 10), "JPEG", quality=80 + k)
        )
    return root


@pytest.fixture
def made(tmp_path: Path) -> tuple[Folder, list[str], list[str], Path]:
    """A folder, its groups and splits, and where its TFDS set is."""
    folder = require_clean(read_folder(varied_set(tmp_path / "data"), size=32))
    groups = near_duplicate_groups(folder.records)
    splits = assign_splits(folder, groups, seed=1)
    assert set(splits) == {"train", "val", "test", "left_out"}
    prepare(tmp_path / "data", tmp_path / "tfds", seed=1, workers=1, say=lambda line: None)
    return folder, groups, splits, tmp_path / "tfds"


def test_the_same_numbers_as_from_the_folder(made):
    folder, groups, splits, where = made
    got = read_tfds(f"gear@{where}", size=32)
    assert got.classes == folder.classes
    assert got.fingerprint == folder.fingerprint
    assert got.refused == got.ignored == ()
    assert [(r.path, r.sha256, r.label) for r in got.records] == [
        (r.path, r.sha256, r.label) for r in folder.records
    ]
    assert [r.descriptor for r in got.records] == [r.descriptor for r in folder.records]
    assert [r.split for r in got.records] == splits
    assert near_duplicate_groups([replace(r, group=None) for r in got.records]) == groups
    assert near_duplicate_groups(got.records) == [r.group for r in got.records] == groups
    assert assign_splits(got, groups, seed=99) == splits
    for size in (32, 20):
        expected = pixels(folder, size)
        assert np.array_equal(pixels(got, size), expected)
        with empty_cache():
            assert np.array_equal(pixels(got, size), expected)
    for record in got.records:
        assert np.array_equal(got.load(record), load_rgb(folder.root / record.path))


def test_named_splits_and_features_for_others(made):
    folder, groups, splits, where = made
    builder = tfds.builder_from_directory(where / "gear" / "1.0.0")
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == Counter(splits)
    assert builder.info.features["label"].names == list(folder.classes)
    rows = list(builder.as_data_source("test"))
    by_path = {r.path: (r, group) for r, group in zip(folder.records, groups, strict=True)}
    for row in rows:
        record, group = by_path[row["path"].decode()]
        assert row["image"].shape == (record.height, record.width, 3)
        assert np.array_equal(row["image"], folder.load(record)), "TFDS's own decoder agrees"
        assert row["label"] == record.label
        assert (row["sha256"].decode(), row["group"].decode()) == (record.sha256, group)


def test_plain_jpegs_are_stored_as_they_are(made):
    _, _, _, where = made
    got = read_tfds(f"gear@{where}", size=32)
    kept = {r.path for r in got.records if got.cache_key(r) == r.sha256}
    assert "boots/é ü.JPG" in kept
    assert not kept & {"axes/hidden.png", "axes/cmyk.jpg", "boots/turned.jpg", "boots/grey.jpg"}


def test_a_large_jpeg_is_stored_as_it_is():
    """It is decoded only at reduced size."""
    file = io.BytesIO()
    Image.new("RGB", (1300, 1000), "red").save(file, "JPEG")
    assert portable(file.getvalue()) == file.getvalue()
    Image.new("L", (1300, 1000)).save(file := io.BytesIO(), "JPEG")
    assert portable(file.getvalue()).startswith(b"\x89PNG")


def test_portable_bytes_show_the_same_anywhere(tmp_path: Path):
    for path in sorted(varied_set(tmp_path).rglob("*.*")):
        data = path.read_bytes()
        with Image.open(io.BytesIO(portable(data))) as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), load_rgb(data)), path


def test_opening_reads_no_picture(made, monkeypatch):
    folder, _, _, where = made
    for shard in (where / "gear" / "1.0.0").glob("*.array_record-?????-of-?????"):
        shard.write_bytes(bytes(shard.stat().st_size))
    monkeypatch.setattr("jaxgear.data.images.decode._decode", None)
    got = read_tfds(f"gear@{where}", size=32)
    assert got.fingerprint == folder.fingerprint
    with pytest.raises(DataError, match=r"gear-\w+.array_record-00000-of-00001: damaged"):
        got.read(got.records[0])


def test_built_with_tfds_alone(made, tmp_path: Path, capfd: pytest.CaptureFixture):
    """`Gear` takes the folder as `manual_dir`, and gives what `prepare` gives."""
    folder, *_ = made
    tfds.disable_progress_bar()
    builder = Gear(data_dir=str(tmp_path / "built"), file_format="array_record")
    options = tfds.download.DownloadConfig(manual_dir=str(folder.root))
    builder.download_and_prepare(download_config=options)
    prepare(folder.root, tmp_path / "prepared", workers=1, say=lambda line: None)
    built = read_tfds(f"gear@{tmp_path / 'built'}", size=32)
    prepared = read_tfds(f"gear@{tmp_path / 'prepared'}", size=32)
    assert built.records == prepared.records
    assert built.fingerprint == prepared.fingerprint == folder.fingerprint
    assert [built.read(r) for r in built.records] == [prepared.read(r) for r in prepared.records]
    with pytest.raises(DataError, match="`jaxgear prepare` did not write this"):
        prepare(folder.root, tmp_path / "built")


# --- sets made by others


class Flowers(tfds.core.GeneratorBasedBuilder):
    """A set of somebody else: other feature names, PNG with and without alpha."""

    VERSION = tfds.core.Version("1.2.0")

    def __init__(self, splits: dict[str, int], **options):
        self._wanted = splits
        super().__init__(file_format="array_record", **options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "picture": tfds.features.Image(shape=(None, None, None)),
                    "kind": tfds.features.ClassLabel(names=["tulip", "rose"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, n) for split, n in self._wanted.items()}

    def _generate_examples(self, split: str, count: int):
        for k in range(count):
            pixels = scene(1000 * len(split) + k)
            if k % 3 == 1:
                pixels = np.dstack(
                    [pixels, np.where(np.arange(64) < 32, 0, 255)[None].repeat(48, 0)]
                )
            if k % 3 == 2:
                pixels = pixels[..., 0]
            data = encoded(pixels.astype(np.uint8))
            yield k, {"picture": io.BytesIO(data), "kind": ["tulip", "rose"][k % 2]}


def flowers(where: Path, splits: dict[str, int], **options) -> Path:
    tfds.disable_progress_bar()
    Flowers(splits, data_dir=str(where), **options).download_and_prepare()
    return where


def test_any_image_classification_set(tmp_path: Path):
    where = flowers(tmp_path, {"train": 9, "validation": 6, "test": 6, "unlabelled": 3})
    got = read_tfds(f"flowers@{where}", size=24)
    assert got.classes == ("tulip", "rose")
    assert got.ignored == ("split unlabelled",)
    assert Counter(r.split for r in got.records) == {"train": 9, "val": 6, "test": 6}
    assert got.records[0].path == "test/0000000"
    images = pixels(got, 24)
    assert images.shape == (21, 24, 24, 3)
    for record, image in zip(got.records, images, strict=True):
        assert np.array_equal(image, letterbox(got.load(record), 24))
    assert len({r.sha256 for r in got.records}) == 21
    transparent = [image for image in images if (image[4:-4, :10] == 255).all()]
    assert len(transparent) == 7, "alpha is composited on white"


def test_a_set_with_a_training_split_only_is_split_like_a_folder(tmp_path: Path):
    got = read_tfds(f"flowers@{flowers(tmp_path, {'train': 40})}", size=16)
    assert {r.split for r in got.records} == {None}
    groups = near_duplicate_groups(got.records)
    splits = assign_splits(got, groups, seed=0)
    assert set(splits) >= {"train", "val", "test"}


def test_a_set_without_validation_takes_it_from_train(tmp_path: Path):
    got = read_tfds(f"flowers@{flowers(tmp_path, {'train': 40, 'test': 10})}", size=16)
    splits = assign_splits(got, near_duplicate_groups(got.records), seed=0)
    assert Counter(splits)["test"] == 10
    assert Counter(splits)["val"] > 0


def test_pictures_that_cannot_be_decoded_are_refused(tmp_path: Path, monkeypatch):
    broken = encoded(scene(3), "JPEG")[:-20]
    monkeypatch.setattr(sys.modules[__name__], "encoded", lambda pixels: broken)
    got = read_tfds(f"flowers@{flowers(tmp_path, {'train': 2})}", size=16)
    assert got.records == ()
    assert [r.path for r in got.refused] == ["train/0000000", "train/0000001"]
    assert "truncated" in got.refused[0].reason


def test_sources_that_do_not_exist(tmp_path: Path):
    for wrong in ("gear", "@x", "gear@", ""):
        with pytest.raises(DataError, match="expected tfds:NAME@DIR"):
            read_tfds(wrong)
    with pytest.raises(DataError, match="no prepared TFDS set there"):
        read_tfds(f"nothing@{tmp_path}")
    (tmp_path / "odd" / "1.0.0").mkdir(parents=True)
    (tmp_path / "odd" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="not a readable TFDS set"):
        read_tfds(f"odd@{tmp_path}")


def test_configs_and_versions(tmp_path: Path):
    base = flowers(tmp_path / "made", {"train": 2}) / "flowers"
    shutil.copytree(base / "1.2.0", tmp_path / "sets" / "flowers" / "small" / "1.2.0")
    with pytest.raises(DataError, match=r"it has the configs small: use tfds:NAME:CONFIG@DIR"):
        read_tfds(f"flowers@{tmp_path / 'sets'}")
    assert len(read_tfds(f"flowers:small@{tmp_path / 'sets'}", size=16).records) == 2
    shutil.copytree(base / "1.2.0", base / "1.10.0")
    assert read_tfds(f"flowers@{tmp_path / 'made'}", size=16).root.name == "1.10.0"


def test_tensorflow_is_not_imported(made):
    code = f"""
        import sys
        from jaxgear.data.tfds.read import read_tfds
        assert len(read_tfds("gear@{made[3]}", size=32).records) > 20
        assert not any(name.split(".")[0] in ("tensorflow", "torch") for name in sys.modules)
        assert "jax" not in sys.modules
    """
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=root)


def test_a_set_in_another_file_format(made):
    where = made[3]
    info = where / "gear" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="stored as tfrecord, which needs TensorFlow"):
        read_tfds(f"gear@{where}", size=32)


@pytest.mark.parametrize("suffix", ["", ".npz"])
@pytest.mark.parametrize("damage", ["missing", "short", "noise"])
def test_a_damaged_set(made, damage: str, suffix: str):
    """The file is named: when the set is opened, or noise in a shard when its picture is read."""
    where = made[3]
    name = f"gear-train.array_record-00000-of-00001{suffix}"
    path = where / "gear" / "1.0.0" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "noise":
        path.write_bytes(data[:2000] + bytes(4000) + data[6000:])
    with pytest.raises(DataError, match=f"{name}: (missing|damaged|cannot)") as caught:
        pixels(read_tfds(f"gear@{where}", size=32), 32)
    assert "\n" not in str(caught.value)


def test_a_set_of_others_that_is_damaged(tmp_path: Path):
    root = flowers(tmp_path, {"train": 9}) / "flowers" / "1.2.0"
    got = read_tfds(f"flowers@{tmp_path}", size=16)
    shard = next(root.glob("*array_record*"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"1\.2\.0: damaged TFDS set"):
        read_tfds(f"flowers@{tmp_path}", size=16)
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(DataError, match=rf"{shard.name}: damaged \("), empty_cache():
        pixels(got, 16)


@pytest.mark.parametrize("name", ["data.gear.evil.Image", "evil.Image", "os.path.Image"])
def test_a_set_that_would_import_something_is_refused(made, monkeypatch, tmp_path, name: str):
    """TFDS imports what features.json names, and the working directory is on Python's path."""
    where = made[3]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for folder in (tmp_path, tmp_path / "data/gear"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.py").write_text("open('canary', 'w')")
    features = where / "gear/1.0.0/features.json"
    known = "tensorflow_datasets.core.features.image_feature.Image"
    assert known in features.read_text()
    features.write_text(features.read_text().replace(known, name))
    with pytest.raises(DataError, match=f"features.json: refused, it would import '{name}'"):
        read_tfds(f"gear@{where}", size=32)
    assert not (tmp_path / "canary").exists()
