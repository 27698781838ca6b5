"""Which new pictures are to be labelled next: what is left out, and the order of the rest."""

import hashlib
import importlib
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import encoded, scene, write_set
from small_bundle import make_bundle

from jaxgear.data.folder import Refused
from jaxgear.data.folder.read import read_heap
from jaxgear.data.labels import Correction
from jaxgear.data.sources import find_pictures
from jaxgear.data.splits import groups, near_duplicates
from jaxgear.evaluation.acquisition import choose, find_candidates
from jaxgear.evaluation.acquisition.choose import most_uncertain
from jaxgear.evaluation.acquisition.ranking import rank, uncertainty
from jaxgear.evaluation.network_features import Network

# The wing hands on a function of this name.
choosing = importlib.import_module("jaxgear.evaluation.acquisition.choose")


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def row(path="", sha256="", action="add", by="ana"):
    return Correction(path, sha256, action, "axes", by, "2026-11-29T00:00:00+00:00")


def paler(seed):
    """A near-duplicate of a scene, with other bytes."""
    return encoded(scene(seed) // 2 + 60)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with ten new pictures, 00000.png to 00009.png, in new/."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, {"new": 10})
    return tmp_path


def found(sources=("new",), known=None, **more):
    bundle = make_bundle(known=known)
    return find_candidates(find_pictures(list(sources)), bundle, **more)


def numbers(candidates):
    return sorted(Path(record.path).stem for record in candidates.folder.records)


def test_all_new_pictures_are_candidates(here):
    every = found()
    assert len(numbers(every)) == 10
    assert (every.readable, every.known, every.labelled, every.alike) == (10, 0, 0, 0)
    hashes = [record.sha256 for record in every.folder.records]
    assert hashes == sorted(hashes)
    assert all(sha256(record.path) == record.sha256 for record in every.folder.records)


@pytest.mark.parametrize("split", ["train", "val", "test", "left_out"])
def test_pictures_of_the_run_are_none_nor_near_duplicates_of_them(here, split, monkeypatch):
    """Pictures 3 and 4 are in its data, of 12 and 13 only a descriptor is known."""
    monkeypatch.setattr(groups, "_KNOWN", 1)  # compared one after the other
    known = {sha256("new/00003.png"): split, sha256("new/00004.png"): split}
    Path("new/pale3.png").write_bytes(paler(3))
    Path("new/pale12.png").write_bytes(paler(12))
    Path("new/pale13.png").write_bytes(paler(13))
    write_set(here, {"own": 2}, start=12)
    descriptors = [record.descriptor for record in read_heap("own").records]
    left = found(known=known, descriptors=descriptors)
    assert numbers(left) == [f"{n:05d}" for n in (0, 1, 2, 5, 6, 7, 8, 9)]
    assert (left.readable, left.known) == (13, 5)
    assert "pale12" in numbers(found(known=known))


def test_one_of_near_duplicates_and_of_copies_is_a_candidate(here):
    Path("new/pale1.png").write_bytes(paler(1))
    shutil.copy("new/00002.png", "new/copy.png")
    shutil.copy("new/00002.png", "new/a copy.png")
    with PIL.Image.open("new/00005.png") as image:
        image.save("new/again.jpg", quality=80)
    every = found()
    assert len(numbers(every)) == 10
    assert (every.readable, every.alike) == (14, 4)
    assert len({"00001", "pale1"} & set(numbers(every))) == 1
    assert len({"00005", "again"} & set(numbers(every))) == 1
    numbered = near_duplicates.groups([record.descriptor for record in every.folder.records])
    assert len(set(numbered.tolist())) == 10


def test_the_order_in_which_files_are_named_does_not_matter(here):
    Path("new/pale1.png").write_bytes(paler(1))
    shutil.copy("new/00002.png", "new/copy.png")
    files = sorted(map(str, Path("new").iterdir()))
    first = found(files)
    for seed in range(3):
        shuffled = [files[n] for n in np.random.default_rng(seed).permutation(len(files))]
        assert found(shuffled) == first


def test_labelled_pictures_are_none_nor_near_duplicates_of_them(here):
    Path("new/pale4.png").write_bytes(paler(4))
    labels = [
        row("elsewhere.png", sha256("new/00004.png")),
        row("", sha256("new/00005.png"), "remove"),
        row(str(here / "new/00006.png")),
        row("new/00007.png"),
        row("../new/00008.png"),
        row("no/such.png"),
        row("new/00009.png", "0" * 64),  # other bytes: the hash counts
    ]
    Path("labels").mkdir()
    left = found(labels=labels, place=Path("labels"))
    assert numbers(left) == ["00000", "00001", "00002", "00003", "00009"]
    assert (left.readable, left.labelled) == (11, 6)


def test_unreadable_files_are_listed_by_path(here):
    Path("new/00003.png").write_text("hello")
    Path("new/00001.png").write_bytes(Path("new/00001.png").read_bytes()[:200])
    every = found(["new", "gone.png"])
    assert [file.path for file in every.folder.refused] == [
        "gone.png",
        "new/00001.png",
        "new/00003.png",
    ]
    assert every.folder.refused[0] == Refused("gone.png", "no such file")
    assert every.readable == 8
    assert found(["gone.png"]).folder.records == ()


def test_nothing_is_cached_below_the_pictures(here, monkeypatch):
    monkeypatch.setenv("JAXGEAR_CACHE", str(here / "new/cache"))
    before = sorted(Path("new").rglob("*"))
    assert len(numbers(found())) == 10
    assert sorted(Path("new").rglob("*")) == before


def test_uncertainty_in_closed_form():
    probs = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.5, 0.3]])
    np.testing.assert_allclose(uncertainty(probs), [1, 0, 0.8])
    np.testing.assert_allclose(uncertainty(np.array([[0.9, 0.1]])), [0.2])


def directions(*degrees):
    """Features of length 1 at angles in a plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def two_classes(*certain):
    """Probabilities of two classes: that of the first."""
    return np.stack([certain, 1 - np.array(certain)], axis=1)


def test_each_is_uncertain_and_unlike_those_before_it():
    """Three uncertain pictures of one kind, one of another kind, and a certain one far away."""
    features = directions(0, 1, 2, 90, 180)
    probs = two_classes(0.55, 0.5, 0.55, 0.6, 1.0)
    rows, scores = rank(features, probs, 5)
    assert rows.tolist()[:2] == [1, 3]  # uncertainty alone would take 1, 0, 2
    half = np.sin(np.radians(89) / 2)  # of the distance from 1 to 3
    np.testing.assert_allclose(scores[:2], [1, 0.8 * half], rtol=1e-5)
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4]
    assert rows[-1] == 4  # distance alone would take it second
    assert scores[-1] == 0
    np.testing.assert_array_equal(rank(features, probs, 2)[0], [1, 3])


def test_scores_never_grow_and_no_row_comes_twice():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows, scores = rank(features, rng.dirichlet(np.ones(4), 60), 100)
    assert sorted(rows.tolist()) == list(range(60))
    assert (np.diff(scores) <= 0).all()
    assert 0 <= scores.min() < scores.max() <= 1


def test_ten_alike_are_ranked_by_uncertainty_after_the_first():
    """Equal features have no distance: the first alone has a score, and no row is lost."""
    probs = two_classes(*np.linspace(0.95, 0.5, 10))
    rows, scores = rank(np.repeat(directions(30), 10, axis=0), probs, 10)
    assert rows[0] == 9
    assert sorted(rows.tolist()) == list(range(10))
    np.testing.assert_allclose(scores[1:], 0, atol=1e-3)


def test_a_second_kind_is_chosen_before_a_second_picture_of_the_first():
    """Four kinds of very different size, all equally uncertain: one of each comes first."""
    rng = np.random.default_rng(1)
    kinds = np.repeat([0, 1, 2, 3], [200, 30, 5, 1])
    features = np.eye(4)[kinds] + 0.02 * rng.normal(size=(236, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows, _ = rank(features, two_classes(*rng.uniform(0.5, 0.6, 236)), 4)
    assert sorted(kinds[rows]) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_in_parts_the_most_uncertain_are_those_of_the_whole(size):
    rng = np.random.default_rng(2)
    probs = np.round(rng.dirichlet(np.ones(3), 300), 1)  # with ties
    features = rng.normal(size=(300, 2))
    order = np.arange(300)
    parts = (
        (order[i : i + size], features[i : i + size], probs[i : i + size])
        for i in range(0, 300, size)
    )
    rows, kept, kept_probs = most_uncertain(parts, 20)
    expected = np.sort(np.argsort(-uncertainty(probs), kind="stable")[:20])
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(kept, features[expected])
    np.testing.assert_array_equal(kept_probs, probs[expected])


def test_no_more_than_twice_as_many_rows_are_held_as_are_kept(monkeypatch):
    held = []

    def spy(blocks, most):
        held.append(sum(len(block[0]) for block in blocks))
        return cut(blocks, most)

    cut = choosing._cut
    monkeypatch.setattr(choosing, "_cut", spy)
    parts = (
        (np.arange(n, n + 10), np.zeros((10, 3)), np.full((10, 2), 0.5)) for n in range(0, 5000, 10)
    )
    assert most_uncertain(parts, 50)[0].tolist() == list(range(50))
    assert max(held) == 2 * 50 + 10


def test_choices_are_those_of_the_network(here, ticks):
    """Scores come from calibrated probabilities and features of the network itself."""
    make_bundle().save(here / "model")
    network = Network.load(here / "model")
    folder = found().folder
    chosen = choose(network, folder, 4)
    features, logits = network(folder, folder.records)
    rows, scores = rank(features, network.bundle.probs(logits), 4)
    assert [one.record for one in chosen] == [folder.records[row] for row in rows]
    np.testing.assert_allclose([one.score for one in chosen], scores)
    assert ticks["features"][-1] == (10, 10)
    assert len(choose(network, folder, 99)) == 10
    assert choose(network, found(["gone.png"]).folder, 5) == []
