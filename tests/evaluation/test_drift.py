"""Whether new pictures look like those of a run: level, power, and what is left out."""

import dataclasses
import shutil

import numpy as np
import PIL.Image
import pytest
from made_runs import untrained
from pictures import encoded, scene, write_set

from jaxgear.data.folder.read import pixels, read_folder, read_heap
from jaxgear.data.recorded import Pictures, SplitRow
from jaxgear.errors import DataError
from jaxgear.evaluation.drift import find, find_drift, pictures
from jaxgear.evaluation.drift.sheet import foreign_sheet
from jaxgear.evaluation.drift.two_sample import compare, gaussian_kernel, holm
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.network_features import Network
from jaxgear.prediction.predictor import Predictor

pytestmark = pytest.mark.one_cache


def none(count):
    """One class for all."""
    return np.zeros(count, int)


def test_two_draws_of_one_distribution_are_flagged_in_5_percent():
    """400 pairs: the count is binomial (400, 0.05), within 8 and 34 but for 1 case in 1,000."""
    p_values = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        new, known = rng.exponential(size=(12, 3)), rng.exponential(size=(25, 3))
        classes = rng.integers(0, 3, 12), rng.integers(0, 3, 25)
        p_values.append(compare(new, known, *classes, seed=seed, permutations=99)[0].p_value)
    assert 8 <= sum(p <= 0.05 for p in p_values) <= 34
    assert 160 <= sum(p <= 0.5 for p in p_values) <= 240
    assert min(p_values) >= 1 / 100


def test_another_distribution_is_flagged():
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(100, 4)), rng.normal(size=(30, 4))
    for shifted in (new + 0.8, 2.5 * new):
        whole, _ = compare(shifted, known, none(30), none(100))
        assert whole.p_value == 1 / 2000
    assert compare(new, known, none(30), none(100))[0].p_value > 0.05


def test_another_class_balance_is_no_evidence():
    """Classes far apart, each as before, in other shares."""
    rng = np.random.default_rng(1)
    known_classes = np.repeat([0, 1], [80, 20])
    new_classes = np.repeat([0, 1], [8, 32])
    known = rng.normal(size=(100, 2)) + 10 * known_classes[:, None]
    new = rng.normal(size=(40, 2)) + 10 * new_classes[:, None]
    assert compare(new, known, new_classes, known_classes)[0].p_value > 0.05
    assert compare(new, known, none(40), none(100))[0].p_value < 0.001


def test_the_class_that_changed_is_the_one_that_is_named():
    rng = np.random.default_rng(2)
    classes = np.repeat(np.arange(4), 25)
    known, new = rng.normal(size=(100, 3)), rng.normal(size=(100, 3))
    new[classes == 2] += 2
    whole, parts = compare(new, known, classes, classes)
    corrected = holm([parts[label].p_value for label in range(4)])
    assert whole.p_value < 0.05
    assert corrected[2] < 0.05 < min(corrected[:2] + corrected[3:])
    assert (parts[1].n, parts[1].reference) == (25, 25)
    # A class of one set alone has no part.
    assert compare(new[:5], known[:5], none(5), none(5) + 1) == (None, {})


def test_the_statistic_in_closed_form():
    """Against sums over pairs, as the paper writes it."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(4, 2)), rng.normal(size=(6, 2))
    both = np.concatenate([a, b])
    apart = [np.sum((x - y) ** 2) for i, x in enumerate(both) for y in both[i + 1 :]]
    width = np.median(apart)

    def mean(left, right):
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * width)) for x in left for y in right])

    expected = 4 * 6 / 10 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))
    whole, _ = compare(a, b, none(4), none(6), permutations=9)
    assert whole.statistic == pytest.approx(expected)
    np.testing.assert_array_equal(gaussian_kernel(np.ones((3, 2))), np.ones((3, 3)))
    assert compare(np.ones((3, 2)), np.ones((4, 2)), none(3), none(4))[0].p_value == 1


def test_holm_in_closed_form():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A run of an untrained network on two classes of 60 pictures, and their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        root = write_set(tmp_path_factory.mktemp("set"), {"axes": 60, "boots": 60})
        run = untrained(tmp_path_factory.mktemp("runs"), str(root), size=16)
    return FinishedRun.read(run), root


def grey(root, count, start=5000):
    """Other pictures in a folder: grey and dim."""
    root.mkdir(parents=True)
    for seed in range(start, start + count):
        pixels = np.repeat(scene(seed).mean(axis=2, keepdims=True) / 3, 3, axis=2)
        (root / f"{seed}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    return root


def test_new_pictures_like_the_old_ones_are_not_flagged_and_others_are(trained, tmp_path):
    run, _ = trained
    alike = write_set(tmp_path / "alike", {"axes": 20, "boots": 20}, start=1000)
    drift = find_drift(run, read_folder(alike))
    assert drift.p_value > 0.05
    assert drift.classes_by == "label"
    assert {name: row["n"] for name, row in drift.by_class.items()} == {"axes": 20, "boots": 20}
    held_out = {picture.path for name in ("val", "test") for picture in run.split(name)}
    assert drift.reference == len(held_out)
    assert drift.reason == ""
    different = find_drift(run, read_heap(grey(tmp_path / "grey", 30)))
    assert different.p_value < 0.05
    assert different.classes_by == "prediction"
    assert sum(row["n"] for row in different.by_class.values()) == 30
    assert min(row["p_value"] or 1 for row in different.by_class.values()) < 0.05
    assert different.lines()[0].startswith("drift: 30 new pictures look different (p = 0.000")


def test_copies_and_near_duplicates_of_known_pictures_do_not_count(trained, tmp_path):
    run, old = trained
    root = grey(tmp_path / "new", 12)
    for name in ("axes/00001.png", "axes/00002.png", "boots/00070.png"):
        shutil.copy(old / name, root / name.replace("/", "-"))
        with PIL.Image.open(old / name) as image:
            image.resize((48, 36)).save(root / f"again-{name[-9:-4]}.jpg", quality=80)
    with PIL.Image.open(root / "5000.png") as image:
        image.save(root / "5000.jpg", quality=80)  # of a new one: one of both counts
    drift = find_drift(run, read_heap(root))
    assert (drift.n, drift.known) == (12, 6)
    only = tmp_path / "only"
    shutil.copytree(old / "axes", only)
    drift = find_drift(run, read_heap(only))
    assert drift.p_value is None
    assert drift.reason == "0 new pictures, at least 5 needed"
    assert drift.known == 60


def test_the_reference_was_not_trained_on_and_has_no_near_duplicates(trained, monkeypatch):
    run, root = trained
    seen = []

    def spy(result, network, known, reference, names, fresh):
        seen.extend((record.path, name) for record, name in zip(reference, names, strict=True))
        return result

    monkeypatch.setattr(find, "_compared", spy)
    new = read_folder(root)
    others = tuple(
        dataclasses.replace(r, sha256=f"{i}" * 64, descriptor=b"\1\0" * 2 + bytes(544))
        for i, r in enumerate(new.records[:6])
    )
    find_drift(run, dataclasses.replace(new, records=others))
    split = {picture.path: (picture.split, picture.name) for picture in run.pictures}
    assert {split[path][0] for path, _ in seen} == {"val", "test"}
    assert all(split[path][1] == name for path, name in seen)


def test_held_out_pictures_that_look_like_others_are_left_out_unless_most_do(tmp_path):
    folder = read_folder(write_set(tmp_path / "set", {"a": 1, "b": 1}))
    first = folder.records[0]
    groups = {"aa" * 32: "x", "bb" * 32: "x", "cc" * 32: "y", "dd" * 32: "z"}
    records = tuple(dataclasses.replace(first, sha256=s, group=g) for s, g in groups.items())
    records += (dataclasses.replace(records[2], path="copy"),)  # the same bytes: no other picture

    def chosen(*splits):
        rows = zip(records, splits, strict=False)
        told = Pictures([SplitRow(r.path, r.sha256, r.group, r.group, s) for r, s in rows])
        run = FinishedRun(tmp_path, {}, {}, "", "", ("a", "b"), told, (), None)
        found, names = pictures.choose_reference(run, dataclasses.replace(folder, records=records))
        return [record.sha256[:2] for record in found], names

    assert chosen("val", "train", "test", "train") == (["cc"], ["y"])
    assert chosen("val", "test", "train", "val") == (["dd"], ["z"])
    assert chosen("val", "train", "train", "train") == (["aa"], ["x"])  # no other is left


def test_old_and_new_pictures_in_one_folder(trained, tmp_path):
    """The run's pictures are found in it; the folder of its config is not needed."""
    run, old = trained
    root = tmp_path / "all"
    shutil.copytree(old, root)
    write_set(root, {"axes": 15, "boots": 15}, start=2000)
    moved = dataclasses.replace(run, config={**run.config, "data": "no/such"})
    drift = find_drift(moved, read_folder(root))
    assert (drift.n, drift.known) == (30, 120)
    assert drift.p_value > 0.05


def test_where_the_run_s_pictures_are_is_asked_for(trained, tmp_path):
    run, old = trained
    new = read_folder(write_set(tmp_path / "new", {"axes": 8, "boots": 8}, start=3000))
    moved = dataclasses.replace(run, config={**run.config, "data": "no/such"})
    drift = find_drift(moved, new)
    assert drift.p_value is None
    assert "--data FOLDER" in drift.reason
    assert drift.lines()[0].startswith("drift: not tested: ")
    assert find_drift(moved, new, str(old)).p_value > 0.05
    with pytest.raises(DataError, match="no/other"):
        find_drift(run, new, "no/other")
    with pytest.raises(DataError, match="none of the pictures"):
        find_drift(run, new, str(new.root))


def test_a_class_that_the_run_does_not_know(trained, tmp_path):
    """All pictures then go by the predicted class, those of the reference too."""
    root = write_set(tmp_path / "new", {"axes": 10, "stoves": 20}, start=4000)
    drift = find_drift(trained[0], read_folder(root))
    assert drift.classes_by == "prediction"
    assert set(drift.by_class) <= {"axes", "boots"}
    assert drift.p_value > 0.05


def test_classes_with_few_pictures_have_no_p_value(trained, tmp_path):
    root = write_set(tmp_path / "new", {"axes": 4, "boots": 9}, start=6000)
    rows = find_drift(trained[0], read_folder(root)).by_class
    assert rows["axes"]["p_value"] is None
    assert 0 < rows["boots"]["p_value"] <= 1


def test_the_most_foreign_pictures_come_first(trained, tmp_path):
    root = write_set(tmp_path / "new", {"axes": 20, "boots": 20}, start=7000)
    magenta = np.full((48, 64, 3), (255, 0, 255), np.uint8)
    (root / "axes/magenta.png").write_bytes(encoded(magenta))
    drift = find_drift(trained[0], read_folder(root))
    first = drift.most_foreign[0]
    assert first.record.path == "axes/magenta.png"
    assert first.farther_than == 1
    far = [one.distance for one in drift.most_foreign]
    assert far == sorted(far, reverse=True)
    assert len(far) == find.FOREIGN
    figure = foreign_sheet(drift)
    assert len(figure.axes) == find.FOREIGN
    assert figure.axes[0].title.get_text() == "1"
    assert foreign_sheet(dataclasses.replace(drift, most_foreign=())) is None


def test_distances_to_the_nearest_in_closed_form():
    b = np.arange(7.0)[:, None]
    np.testing.assert_allclose(find.nearest(np.array([[0.0], [10.0]]), b), [4, 8])
    np.testing.assert_allclose(find.nearest(b, b, skip_first=True), [5, 4, 3, 3, 3, 4, 5])
    np.testing.assert_allclose(find.nearest(b, b[:2]), [1, 1, 2, 3, 4, 5, 6])


def test_features_are_kept_and_are_those_of_the_network(trained, monkeypatch):
    run, root = trained
    network = Network.load(run.path)
    folder = read_folder(root, size=16)
    features, logits = network(folder, folder.records[:20])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    images = pixels(dataclasses.replace(folder, records=folder.records[:20]), 16)
    expected = Predictor(network.bundle).logits(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    fresh = Network.load(run.path)
    monkeypatch.setattr(Network, "_compute", None)  # nothing is computed again
    again, _ = fresh(folder, folder.records[5:15])
    np.testing.assert_array_equal(again, features[5:15])
    assert [array.shape for array in fresh(folder, ())] == [(0, features.shape[1]), (0, 2)]


def test_a_network_without_a_dense_last_layer_gives_its_logits(trained):
    """Its logits, of length 1, are the features."""
    run, root = trained
    network = Network.load(run.path)
    program = dataclasses.replace(network.bundle.program, head=None)
    headless = Network(dataclasses.replace(network.bundle, program=program), "headless")
    folder = read_folder(root, size=16)
    features, logits = headless(folder, folder.records[:9])
    np.testing.assert_allclose(logits, network(folder, folder.records[:9])[1], rtol=1e-4, atol=1e-5)
    length = np.linalg.norm(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(features, logits / length, rtol=1e-5)
    assert headless(folder, ())[0].shape == (0, 2)
