"""The comparison of refusal scores: which pictures it reads, what it prints, how it fails."""

import contextlib

import numpy as np
import pytest
from made_runs import untrained
from pictures import write_set
from sklearn.metrics import roc_auc_score

from jaxgear.bundle.bundle import Bundle
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.prediction.predictor import Predictor
from scripts import not_gear

pytestmark = pytest.mark.one_cache


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A run of a network that was never trained; beside it gear, more gear, and scenes."""
    root = tmp_path_factory.mktemp("refusal")
    write_set(root / "photos", {"axes": 14, "boots": 12, "tents": 12})
    write_set(root, {"more": 4, "choose": 6}, start=500)
    write_set(root, {"scenes": 5}, start=900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        return untrained(root / "runs", str(root / "photos"))


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["not_gear", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        not_gear.main()
    return stop.value.code


def logits(bundle, files):
    images = np.stack([letterbox(load_rgb(file), bundle.size) for file in files])
    return Predictor(bundle).logits(images)


def test_figures_are_those_of_the_pictures(run, monkeypatch, capsys):
    """Thresholds from the validation split and --choose; figures of the test split and --gear."""
    root = run.parents[1]
    words = [run, "--gear", root / "more", "--choose", root / "choose"]
    assert call(monkeypatch, *words, "--not-gear", root / "scenes") == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["score", "AUROC", "gear accepted", "rest refused"]
    found = {name: [float(figure) for figure in figures] for name, *figures in lines[2:]}
    assert len(found) == 7
    assert all(0 <= figure <= 1 for figures in found.values() for figure in figures)

    finished, bundle = FinishedRun.read(run), Bundle.load(run)
    split = lambda name: [root / "photos" / one.path for one in finished.split(name)]  # noqa: E731
    known = split("val") + sorted((root / "choose").iterdir())
    gear, rest = (
        split("test") + sorted((root / "more").iterdir()),
        list((root / "scenes").iterdir()),
    )
    for name, score in {
        "largest less mean logit": lambda z: z.max(axis=1) - z.mean(axis=1),
        "largest logit": lambda z: z.max(axis=1),
        "mean logit": lambda z: z.mean(axis=1),
        "energy": lambda z: np.log(np.exp(z).sum(axis=1)),
    }.items():
        inside, outside = (score(logits(bundle, files)) for files in (gear, rest))
        least = not_gear.threshold(score(logits(bundle, known)), 0.95)
        auroc = roc_auc_score([1] * len(inside) + [0] * len(outside), [*inside, *outside])
        figures = [auroc, (inside >= least).mean(), (outside < least).mean()]
        np.testing.assert_allclose(found[name], figures, atol=6e-4, err_msg=name)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no/such/run", "--not-gear", "{root}/scenes"], 5, "no/such/run"),
        (["{run}", "--not-gear", "no/such/scenes"], 4, "no/such/scenes"),
        (["{run}", "--not-gear", "{root}/scenes", "--gear", "{root}/none"], 4, "none"),
        (["{run}", "--not-gear", "{root}/text"], 4, "text"),
        (["{run}", "--not-gear", "{root}/links"], 4, "links/gone.jpg"),
        (
            ["{run}", "--not-gear", "{root}/scenes", "--data", "{root}/moved"],
            4,
            "moved: no such folder",
        ),
    ],
)
def test_mistakes_are_one_line(run, monkeypatch, capsys, words, code, said):
    root = run.parents[1]
    (root / "text").mkdir(exist_ok=True)
    (root / "text" / "a.jpg").write_text("no picture")
    (root / "links").mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (root / "links" / "gone.jpg").symlink_to("nowhere")
    words = [word.format(run=run, root=root) for word in words]
    assert call(monkeypatch, *words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
