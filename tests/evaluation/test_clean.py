"""Suspicious labels and pictures: out of sample, in closed form, and found where they were put."""

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
from scipy.ndimage import uniform_filter1d
from sklearn.linear_model import LogisticRegression

from jaxgear.data.folder.read import Folder, Record, read_folder
from jaxgear.evaluation.clean import confident, find_suspicious, outliers, probabilities, quality
from jaxgear.evaluation.clean.find import judge
from jaxgear.evaluation.clean.page import render
from jaxgear.models.pretrained.backbone import load_backbone

WEIGHTS = Path(__file__).parents[1] / "models" / "golden" / "resnet18_width2.pth"


def clusters(counts, width=12, spread=0.5, seed=0):
    """Features, f32 [N, width], around a mean for each class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = rng.normal(size=(len(counts), width))
    return (means[labels] + spread * rng.normal(size=(len(labels), width))).astype(
        np.float32
    ), labels


def as_folder(labels, sha256=None):
    """Records without files, one for each label."""
    records = tuple(
        Record(
            f"c{label}/{i}.png", sha256[i] if sha256 else f"{i:064x}", int(label), None, 90, 90, b""
        )
        for i, label in enumerate(labels)
    )
    names = tuple(f"c{label}" for label in range(max(labels) + 1))
    return Folder(Path("data"), names, records, (), (), "")


def alone(count):
    return [f"g{i}" for i in range(count)]


def test_folds_never_split_a_group():
    rng = np.random.default_rng(1)
    groups = [f"g{number}" for number in rng.integers(0, 60, 200)]
    folds = probabilities.assign_folds(groups)
    for group in set(groups):
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == group}) == 1
    sizes = [len({g for f, g in zip(folds, groups, strict=True) if f == fold}) for fold in range(5)]
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(folds, probabilities.assign_folds(groups))


def test_probabilities_do_not_depend_on_the_picture_s_own_label():
    """To the bit, nor on those of its near-duplicates; those of other folds do change."""
    features, labels = clusters([20, 20, 20])
    groups = alone(60)
    groups[1] = groups[0]
    folds = probabilities.assign_folds(groups)
    before, judged = probabilities.out_of_sample(features, labels, folds, 3)
    changed = labels.copy()
    changed[:2] = 2
    after, _ = probabilities.out_of_sample(features, changed, folds, 3)
    same_fold = folds == folds[0]
    assert judged.all()
    np.testing.assert_array_equal(after[same_fold], before[same_fold])
    assert (after[~same_fold] != before[~same_fold]).any(axis=1).all()
    np.testing.assert_allclose(before.sum(axis=1), 1, rtol=1e-5)


def test_the_classifier_is_logistic_regression():
    """Against scikit-learn's, whose C is 1 / (N decay)."""
    features, labels = clusters([30, 20, 25], spread=1.5)
    x = probabilities.unit_length(features) * np.float32(12**0.5)
    for decay in (0.01, 0.1, 1.0):
        kernel, bias = probabilities.fit(x, labels, 3, decay)
        logits = x @ kernel + bias
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        oracle = LogisticRegression(C=1 / (len(x) * decay), tol=1e-8, max_iter=2000).fit(x, labels)
        np.testing.assert_allclose(probs, oracle.predict_proba(x), atol=5e-3)


def test_the_confident_joint_in_closed_form():
    labels = np.array([0, 0, 0, 1, 1, 1])
    probs = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.3, 0.7], [0.65, 0.35], [0.45, 0.55]])
    # Class 0: (0.9 + 0.7 + 0.2) / 3. Class 1: (0.7 + 0.35 + 0.55) / 3.
    least = confident.thresholds(probs, labels)
    np.testing.assert_allclose(least, [0.6, 1.6 / 3])
    np.testing.assert_array_equal(confident.confident_class(probs, least), [0, 0, 1, 1, 0, 1])
    joint = confident.confident_joint(probs, labels)
    np.testing.assert_array_equal(joint, [[2, 1], [1, 2]])
    assert confident.estimated_errors(joint, labels) == pytest.approx(3 / 3 + 3 / 3)


def test_a_picture_that_reaches_no_threshold_or_two():
    labels = np.array([0, 1, 2, 0, 1])
    least = np.array([0.3, 0.4, np.inf])
    probs = np.array([[0.2, 0.3, 0.5], [0.45, 0.5, 0.05], [0.1, 0.1, 0.8], [0.5, 0.45, 0.05]])
    np.testing.assert_array_equal(confident.confident_class(probs, least), [-1, 1, -1, 0])
    assert confident.thresholds(np.full((5, 4), 0.25), labels)[3] == np.inf
    # A row of the joint without a confident picture counts as right.
    assert confident.estimated_errors(np.array([[0, 0], [1, 3]]), np.array([0, 0, 1, 1])) == 0.5


def test_numbers_of_cleanlab():
    """Of cleanlab 2 (`compute_confident_joint`, `get_confident_thresholds`,
    `get_normalized_margin_for_each_label`), whose scores are 1 less ours.
    """
    labels = np.array([2, 1, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2])
    probs = np.array(
        [[0.229, 0.177, 0.594], [0.392, 0.201, 0.407], [0.152, 0.001, 0.847],
         [0.27, 0.363, 0.367], [0.034, 0.521, 0.445], [0.391, 0.429, 0.18],
         [0.056, 0.008, 0.936], [0.82, 0.064, 0.116], [0.236, 0.727, 0.037],
         [0.162, 0.072, 0.766], [0.228, 0.294, 0.478], [0.621, 0.235, 0.144]]
    )  # fmt: skip
    least = confident.thresholds(probs, labels)
    np.testing.assert_allclose(least, [0.30116667, 0.16533333, 0.50133333], atol=1e-7)
    joint = confident.confident_joint(probs, labels)
    # Two classes of the second row reach their thresholds. cleanlab then takes the likeliest of all
    # classes (2), the paper the likeliest of those two (0).
    np.testing.assert_array_equal(joint, [[1, 4, 1], [0 + 1, 1, 2 - 1], [1, 0, 2]])
    others = np.where(np.eye(3, dtype=bool)[labels], -1, probs).argmax(axis=1)
    np.testing.assert_allclose(
        1 - confident.suspicion(probs, labels, others),
        [0.6825, 0.397, 0.077, 0.4515, 0.2565, 0.481, 0.06, 0.852, 0.2545, 0.802, 0.408, 0.2615],
    )


def test_suspicion_in_closed_form():
    probs = np.array([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
    score = confident.suspicion(probs, np.array([0, 0, 0]), np.array([1, 1, 1]))
    np.testing.assert_allclose(score, [0.9, 0.5, 0.0])


def test_wrong_labels_come_first():
    """All of 2 % that were put in are within the first 2 N, with their class suggested."""
    features, labels = clusters([150, 100, 100, 50], spread=0.7)
    rng = np.random.default_rng(3)
    wrong = rng.choice(400, 8, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + rng.integers(1, 4, 8)) % 4
    found = judge(as_folder(given), features, alone(400))
    first = {s.record.sha256: s for s in found.suspicions[:16] if s.kind == "label"}
    assert {f"{i:064x}" for i in wrong} <= first.keys()
    for i in wrong:
        assert first[f"{i:064x}"].suggested == f"c{labels[i]}"
    assert sum(first[f"{i:064x}"].confident for i in wrong) >= 5
    assert found.estimated == pytest.approx(8, abs=3)
    scores = [suspicion.score for suspicion in found.suspicions]
    assert scores == sorted(scores, reverse=True)
    assert judge(as_folder(labels), features, alone(400)).estimated < 2


def test_a_class_of_one_group_is_not_judged():
    """Its pictures have no other to be learned from; that is said, not called a wrong label."""
    features, labels = clusters([20, 20, 2])
    groups = alone(42)
    groups[41] = groups[40]
    found = judge(as_folder(labels), features, groups)
    assert found.unjudged == ("c2",)
    assert not [s for s in found.suspicions if s.kind == "label" and s.label == "c2"]


def test_one_group_of_pictures_is_not_judged_at_all():
    features, labels = clusters([2, 2])
    found = judge(as_folder(labels), features, ["g"] * 4)
    assert found.unjudged == ("c0", "c1")
    assert {suspicion.kind for suspicion in found.suspicions} == {"duplicate"}
    assert found.estimated == 0


def test_near_duplicates_with_two_labels_are_all_listed():
    features, labels = clusters([20, 20], spread=0.3)
    features[20] = features[0]  # a copy of a picture of class 0, labelled 1
    groups, sha256 = alone(40), [f"{i:064x}" for i in range(40)]
    groups[20], sha256[20] = groups[0], sha256[0]
    found = judge(as_folder(labels, sha256), features, groups)
    rows = [s for s in found.suspicions if s.kind == "duplicate"]
    assert [(s.record.path, s.suggested, s.score > 0.5) for s in rows] == [
        ("c1/20.png", "c0", True),
        ("c0/0.png", "c0", False),
    ]
    assert rows[0].beside.path == "c0/0.png"
    assert rows[0].reason == "same bytes as c0/0.png"
    assert rows[0].score + rows[1].score == pytest.approx(1)


def test_distances_leave_near_duplicates_out(monkeypatch):
    x = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    groups = np.array([0, 0, 1, 2])
    np.testing.assert_allclose(outliers.distances(x, groups, 1), [2**0.5, 2**0.5, 2**0.5, 2**0.5])
    np.testing.assert_allclose(outliers.distances(x, groups, 2), [2, 2, 2**0.5, 2])
    np.testing.assert_allclose(outliers.distances(x, groups, 9), [2, 2, 2**0.5, 2])
    np.testing.assert_array_equal(outliers.distances(x[:2], groups[:2]), [0, 0])
    monkeypatch.setattr(outliers, "REFERENCE", 2)  # the first and the last
    np.testing.assert_allclose(outliers.distances(x, groups, 1), [2, 2, 2**0.5, 2])


def test_the_limit_of_outliers_is_tukey_s_fence():
    assert outliers.limit(np.arange(1.0, 6.0)) == 4 + 1.5 * 2


def picture(seed=0, size=200):
    """A sharp, coloured picture."""
    blocks = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return PIL.Image.fromarray(blocks).resize((size, size), PIL.Image.Resampling.NEAREST)


def faults(image, name="a.png"):
    record = Record(name, "0" * 64, 0, None, image.height, image.width, b"")
    return [words for _, words in quality.faults(record, quality.quality_of(np.asarray(image)))]


def test_faults_of_quality_are_named():
    assert faults(picture()) == []
    (dark,) = faults(picture().point(lambda grey: grey // 5))
    assert dark.startswith("dark")
    (blurred,) = faults(picture().filter(PIL.ImageFilter.GaussianBlur(6)))
    assert blurred.startswith("blurred")
    assert faults(picture(size=40)) == ["tiny (40 x 40 pixels)"]
    assert faults(picture().resize((200, 40))) == ["odd shape (200 x 40)"]
    assert faults(PIL.Image.new("RGB", (100, 100), "white")) == ["blank"]
    assert faults(PIL.Image.new("RGB", (100, 100)))[0] == "blank"


def test_blur_grows_with_blurring():
    image = picture().convert("L")
    found = [
        quality.blur(np.asarray(image.filter(PIL.ImageFilter.GaussianBlur(r)), np.float32))
        for r in (0, 1, 2, 4, 8)
    ]
    assert found[:3] == sorted(found[:3])
    assert found[0] < 0.3
    assert min(found[3:]) > quality.BLURRED
    assert quality.blur(np.full((9, 9), 7, np.float32)) == 0
    # Camera shake blurs one direction alone.
    for axis in (0, 1):
        shaken = uniform_filter1d(np.asarray(image, np.float32), 31, axis=axis)
        assert quality.blur(shaken) > quality.BLURRED


@pytest.fixture
def photographs(tmp_path):
    """Two classes of other colours and scales, with one of each fault that is looked for."""
    rng, root = np.random.default_rng(0), tmp_path / "photos"
    for name, count, tint in (("<b>red", 5, (255, 200, 20)), ("blue", 11, (20, 200, 255))):
        (root / name).mkdir(parents=True)
        for i in range(24):
            blocks = rng.integers(0, 256, (count, count, 3)) * np.array(tint) // 255
            image = PIL.Image.fromarray(blocks.astype(np.uint8)).resize((90, 90), 0)
            image.save(root / name / f"{i}.png")
    (root / "blue/23.png").rename(root / "<b>red/wrong.png")
    image = PIL.Image.open(root / "blue/3.png")
    image.resize((120, 120)).save(root / "<b>red/copy.jpg", quality=90)
    image = PIL.Image.open(root / "blue/4.png")
    image.filter(PIL.ImageFilter.GaussianBlur(5)).save(root / "blue/blurred.png")
    PIL.Image.open(root / "blue/5.png").point(lambda grey: grey // 6).save(root / "blue/dark.png")
    return root


def test_everything_that_was_put_in_is_found(photographs, monkeypatch):
    """By a ResNet-18 of width 2 with random weights: wrong label, copy, blurred, dark."""
    folder = read_folder(photographs, size=32)
    found = find_suspicious(folder, load_backbone(WEIGHTS), 32)
    rows = {(s.record.path, s.kind): s for s in found.suspicions}
    assert rows["<b>red/wrong.png", "label"].suggested == "blue"
    assert rows["<b>red/copy.jpg", "duplicate"].suggested == "blue"
    assert ("blue/3.png", "duplicate") in rows
    assert rows["blue/blurred.png", "quality"].reason.startswith("blurred")
    assert rows["blue/dark.png", "quality"].reason.startswith("dark")
    assert found.suspicions[0].kind in ("label", "duplicate")
    assert len(rows) == len(found.suspicions)  # at most one of each kind
    monkeypatch.setattr(quality, "_BLOCK", 7)  # of 51 pictures
    again = find_suspicious(folder, load_backbone(WEIGHTS), 32)
    assert again.suspicions == found.suspicions


def test_the_page_is_whole_and_escapes_names(photographs):
    folder = read_folder(photographs, size=32)
    found = find_suspicious(folder, load_backbone(WEIGHTS), 32)
    html = render(found, "photos")
    assert "<b>red" not in html
    assert "&lt;b&gt;red → blue" in html
    assert html.count("<img ") == sum(1 + (s.beside is not None) for s in found.suspicions)
    assert 'src="data:image/jpeg' in html
    assert "prefers-color-scheme: dark" in html
    empty = render(dataclasses.replace(found, suspicions=()), "photos")
    assert empty.count("None found.") == 4
