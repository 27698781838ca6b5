"""Pasting keeps the object, replaces the white, and depends only on the keys."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import encoded, scene, write_set
from PIL import Image

from jaxgear.data.augment import camera
from jaxgear.data.augment import paste as backgrounds
from jaxgear.data.augment.transforms import affine, chain, colour, erase, flip, one_of
from jaxgear.data.composites import bank, pasted
from jaxgear.data.dataset import Split
from jaxgear.data.folder import LazyRecords, Record
from jaxgear.data.folder.read import pixels, read_folder
from jaxgear.errors import DataError
from jaxgear.models.features import mirrored

SIDE = 32


@pytest.fixture
def keys():
    return jax.random.split(jax.random.key(5), 24)


@pytest.fixture
def images():
    """Red squares on white with their masks, f32 [24, S, S, 4]."""
    images = np.full((24, SIDE, SIDE, 4), 255, np.float32)
    images[..., 3] = 0
    images[:, 8:24, 10:22] = (200, 20, 20, 255)
    return jnp.asarray(images)


@pytest.fixture
def blue():
    """A bank of one colour, in which there is no red and no white."""
    return jnp.full((3, 48, 48, 3), jnp.array([10, 10, 200], jnp.uint8))


def test_without_a_bank_only_the_mask_goes(images, keys):
    found = backgrounds.backgrounds(None)(keys, images)
    np.testing.assert_array_equal(found, images[..., :3])
    assert backgrounds.outlier_exposure(backgrounds.scenes(None)) is None


def test_pictures_that_are_not_pasted_stay(images, keys, blue):
    found = jax.jit(backgrounds.backgrounds(blue, probability=0.0))(keys, images)
    np.testing.assert_array_equal(found, images[..., :3])


def test_an_empty_mask_is_never_pasted(images, keys, blue):
    """Such an image has a background of its own, and no object that could be cut out."""
    masks = images[..., 3:].at[1::2].set(0)
    images = jnp.concatenate([images[..., :3], masks], axis=-1)
    found = jax.jit(backgrounds.backgrounds(blue, probability=1.0))(keys, images)
    same = (np.asarray(found) == np.asarray(images[..., :3])).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, np.arange(len(images)) % 2 == 1)


def test_the_probability_is_that_of_pictures(images, keys, blue):
    found = jax.jit(backgrounds.backgrounds(blue, probability=0.5))(keys, images)
    same = (np.asarray(found) == np.asarray(images[..., :3])).all(axis=(1, 2, 3))
    assert 5 < same.sum() < 19


def test_no_white_comes_along(images, keys, blue):
    """Half-transparent edges mix the object with the new background, not with the old one."""
    soft = images.at[:, 8:24, 9].set(jnp.array([227.5, 137.5, 137.5, 127.5]))
    layer = backgrounds.cut(soft)
    scene = jnp.broadcast_to(jnp.array([10.0, 10.0, 200.0]), (24, SIDE, SIDE, 3))
    found = np.asarray(backgrounds._over(layer, scene))
    np.testing.assert_allclose(found[0, 10, 9], [105, 15, 110], atol=1)
    np.testing.assert_allclose(found[0, 10, 12], [200, 20, 20], atol=1e-3)
    np.testing.assert_allclose(found[0, 0, 0], [10, 10, 200], atol=1e-3)


def test_the_object_is_in_the_picture_and_the_background_around_it(images, keys, blue):
    paste = backgrounds.backgrounds(blue, probability=1.0, clutter=0.0, occlusion=0.0)
    found = np.asarray(jax.jit(paste)(keys, images))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255
    warm = (found[..., 0] > found[..., 2]).mean(axis=(1, 2))
    assert (warm > 0.01).all()
    cold = (found[..., 2] > found[..., 0]).mean(axis=(1, 2))
    assert (cold > 0.2).all()


def test_a_view_depends_on_its_key_and_picture_alone(images, keys, blue):
    """Equal keys give equal views, in any batch."""
    paste = jax.jit(backgrounds.backgrounds(blue, probability=1.0, clutter=0.0))
    whole = paste(keys, images)
    np.testing.assert_allclose(paste(keys[::-1], images)[::-1], whole, atol=0.51)
    assert not np.allclose(whole[0], whole[1], atol=5)


def test_clutter_comes_from_the_neighbour(images, keys, blue):
    green = images.at[1::2, 8:24, 10:22, :3].set(jnp.array([20.0, 200.0, 20.0]))
    paste = backgrounds.backgrounds(blue, probability=1.0, clutter=1.0, occlusion=0.0)
    found = np.asarray(jax.jit(paste)(keys, green))[0::2]  # red ones
    is_green = (found[..., 1] > 1.3 * found[..., 0]) & (found[..., 1] > 1.3 * found[..., 2])
    assert is_green.any(axis=(1, 2)).mean() > 0.5


def test_masks_move_with_pictures(images, keys):
    """The mask covers exactly the object, also after the other augmentations."""
    found = np.asarray(jax.jit(chain(flip(), affine(), colour(swap=0.5)))(keys, images))
    dark = found[..., :3].min(axis=-1) < 150
    assert found[..., 3][dark].min() > 80
    assert (found[..., :3].min(axis=-1)[found[..., 3] == 0] > 220).all()
    erased = np.asarray(erase(1.0)(keys, images))
    changed = (erased[..., :3] != np.asarray(images)[..., :3]).any(axis=-1)
    assert (erased[..., 3][changed] == 255).all()


def test_empty_scenes_have_no_class(images, keys, blue):
    targets = jax.nn.one_hot(jnp.arange(24) % 4, 4)
    mix = backgrounds.outlier_exposure(backgrounds.scenes(blue), 0.5)
    found, blended = jax.jit(mix)(keys, images[..., :3], targets)
    gone = np.asarray(blended).max(axis=1) == 0.25
    assert 5 < gone.sum() < 19
    np.testing.assert_array_equal(found[~gone], images[~gone][..., :3])
    np.testing.assert_array_equal(blended[~gone], targets[~gone])
    assert (np.asarray(found)[gone].mean(axis=(1, 2))[:, 0] < 235).all()
    rows = jnp.arange(6.0).reshape(3, 2)  # features work like images
    found, _ = backgrounds.outlier_exposure(one_of(rows), 1.0)(keys, jnp.zeros((24, 2)), targets)
    assert {tuple(row) for row in np.asarray(found).tolist()} <= {(0, 1), (2, 3), (4, 5)}


def test_pieces_lie_inside_the_background(keys):
    """An all-white bank gives no black borders."""
    white = jnp.full((2, 40, 40, 3), 255, jnp.uint8)
    found = np.asarray(backgrounds.draw(keys, white, SIDE))
    assert np.ptp(found, axis=(1, 2, 3)).max() < 1e-2


def test_the_camera_keeps_a_grey_scene_grey_and_in_range(keys):
    grey = jnp.full((24, 36, 36, 3), 128.0)  # 36: four rows are outside the whole blocks
    found = np.asarray(jax.jit(camera.camera)(keys, grey))
    assert found.shape == grey.shape
    assert (found >= 0).all()
    assert (found <= 255).all()


def test_blocks_are_jpegs():
    """Compared with Pillow's quality 50 on grey, which uses the standard's luminance table."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).resize((32, 32))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=50)
    wanted = np.asarray(Image.open(file), np.float32)
    x = jnp.asarray(np.asarray(smooth, np.float32)[None, ..., None].repeat(3, -1)) - 128
    found = camera._blocks(x, jnp.ones((1, 1, 1, 1)))[0, ..., 0] + 128
    assert np.abs(np.clip(found, 0, 255) - wanted).mean() < 1.0


def test_drawn_backgrounds_are_drawn_from_the_seed():
    first = bank.drawn_backgrounds(12, 40, seed=3)
    np.testing.assert_array_equal(first, bank.drawn_backgrounds(12, 40, seed=3))
    assert not np.array_equal(first, bank.drawn_backgrounds(12, 40, seed=4))
    assert (first.std(axis=(1, 2)).max(axis=1) > 1).mean() > 0.7


def test_halves_share_nothing_and_go_by_content(tmp_path):
    folder = write_set(tmp_path, {"photos": 12}) / "photos"
    train = {path.name for path, _ in bank.photographs(folder, "train")}
    test = {path.name for path, _ in bank.photographs(folder, "test")}
    assert train
    assert test
    assert not train & test
    assert train | test == {path.name for path in folder.iterdir()}
    name = sorted(test)[0]
    (folder / name).rename(folder / "other.png")
    assert "other.png" in {path.name for path, _ in bank.photographs(folder, "test")}


def test_the_bank_holds_the_training_half(tmp_path):
    folder = write_set(tmp_path, {"photos": 6}) / "photos"
    drawn = bank.background_bank(None, 16)
    both = bank.background_bank(folder, 16)
    assert both.shape[1:] == (24, 24, 3)
    assert len(both) == len(drawn) + 4 * len(bank.photographs(folder, "train"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such folder"), (b"hello", "text, not a picture"), (encoded(scene(1)), "half")],
)
def test_folders_that_do_not_serve(tmp_path, content, message):
    folder = tmp_path / "photos"
    if content is not None:
        folder.mkdir()
        (folder / "a.png").write_bytes(content)
    halves = {"train", "test"}
    if content is not None:
        own = bank.half_of(content)
        halves = {own} if message.startswith("text") else halves - {own}
    with pytest.raises(DataError, match=message):
        bank.photographs(folder, halves.pop())


def test_pasted_pictures_follow_their_split(tmp_path, blue):
    folder = read_folder(write_set(tmp_path, {"a": 2, "b": 3}), size=SIDE)
    labels = np.array([record.label for record in folder.records], np.int32)
    side = Split(pixels(folder, SIDE), labels, folder.records)
    assert pasted.with_pasted(side, folder, None) is side
    both = pasted.with_pasted(side, folder, blue)
    assert both.images.shape == (10, SIDE, SIDE, 3)
    np.testing.assert_array_equal(both.images[:5], side.images)

    def names(bank, part=side):
        return [record.sha256 for record in pasted.with_pasted(part, folder, bank).records]

    assert names(jnp.array(blue)) == [record.sha256 for record in both.records]
    assert not set(names(blue + 1)[5:]) & set(names(blue)[5:])
    fewer = Split(side.images[:4], labels[:4], side.records[:4])
    assert not set(names(blue, fewer)[4:]) & set(names(blue)[5:])
    np.testing.assert_array_equal(both.labels, [*labels, *labels])
    assert len({record.sha256 for record in both.records}) == 10
    scenes = pasted.scene_split(blue, SIDE, 5)
    assert scenes.images.shape == (5, SIDE, SIDE, 3)


def test_views_of_a_large_split_keep_no_record(tmp_path, blue):
    """Pasted views and mirror images make a record when one is asked for."""
    folder = read_folder(write_set(tmp_path, {"a": 30, "b": 30}), size=SIDE)
    labels = np.array([record.label for record in folder.records], np.int32)
    made: list[int] = []

    def record(row: int) -> Record:
        made.append(row)
        return folder.records[row]

    plain = Split(pixels(folder, SIDE), labels, folder.records)
    lazy = Split(plain.images, labels, LazyRecords(60, record))
    for views in (mirrored, lambda split: pasted.with_pasted(split, folder, blue)):
        ours, theirs = views(lazy), views(plain)
        made.clear()
        names, records = ours.names, ours.records
        some = records[2:4], records.take(np.array([4, 1]))
        assert len(made) < 10  # the types of one item are checked in tests
        assert (names[3], names) == (theirs.names[3], theirs.names)
        assert ours.sha256 == theirs.sha256
        assert list(records) == list(theirs.records)
        assert list(some[0]) == [records[2], records[3]]
        assert list(some[1]) == [records[4], records[1]]
        assert records[-1] == theirs.records[len(records) - 1]


def test_banks_of_one_shape_share_a_compiled_program(tmp_path, blue):
    folder = read_folder(write_set(tmp_path, {"a": 2, "b": 3}), size=SIDE)
    labels = np.array([record.label for record in folder.records], np.int32)
    split = Split(pixels(folder, SIDE), labels, folder.records)
    first = pasted.with_pasted(split, folder, blue).images[7]
    compiled = pasted._view._cache_size()
    again = pasted.with_pasted(split, folder, jnp.array(blue)).images[7]
    other = pasted.with_pasted(split, folder, blue // 2).images[7]
    assert pasted._view._cache_size() == compiled
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(other, first)
