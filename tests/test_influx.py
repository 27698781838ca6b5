"""README's loop on the drawn set: from a heap of new pictures to a better model."""

import glob
import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from experiments import scratch
from jaxgear import cli
from jaxgear.data.labels import read_corrections
from jaxgear.data.sources import drawn_set
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.opening import open_session

README = Path(__file__).parents[1] / "README.md"
WEIGHTS = Path(__file__).parent / "models" / "golden" / "resnet18_width2.pth"
SIZE, EPOCHS = 48, 8


def command(line):
    """Runs a line of README; what `cli` exits with."""
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(line)[3:])
    return stop.value.code or 0


def label_all(line, truth):
    """Does what a person at the page of a `review` line does: a class for each picture."""
    words = shlex.split(line)[4:]
    flags = {
        name: words[words.index(name) + 1] for name in ("--labels", "--queue") if name in words
    }
    new = [word for word in words[1:] if "--" not in word and word not in flags.values()]
    folders = [path for word in new for path in sorted(glob.glob(word))]  # noqa: PTH207
    labels = Path(flags["--labels"])
    decided = {row.sha256 for row in read_corrections(labels)} if labels.exists() else set()
    session, _ = open_session(
        Path(words[0]),
        folders,
        labels=labels,
        queue=Path(flags["--queue"]) if "--queue" in flags else None,
        by="ana",
    )
    try:
        for index in range(len(session.pictures)):
            sha256 = hashlib.sha256(Path(session.pictures.file(index)).read_bytes()).hexdigest()
            if sha256 in decided:
                continue
            version = session.describe(index)["version"]
            written, _ = session.decide([Decision(index, version, "label", truth[sha256])])
            assert written
        return len(session.pictures)
    finally:
        session.close()


@pytest.mark.slow
def test_from_a_heap_to_a_better_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "cache"))
    everything = drawn_set("drawn:360")
    files = sorted(p for p in everything.rglob("*") if p.suffix in (".jpg", ".png"))
    truth = {hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name for path in files}
    # A third is the set, with six wrong labels; the rest is a heap without labels.
    wrong = {}
    for number, path in enumerate(files):
        name = path.parent.name
        if number % 3 == 0:
            if number % 60 == 0:
                name = "tents" if name != "tents" else "boots"
                wrong[hashlib.sha256(path.read_bytes()).hexdigest()] = name
            place = Path("FOLDER", name, path.name)
        else:
            place = Path("new", f"{number}{path.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    assert len(wrong) == 6
    block = README.read_text().split("<!-- loop -->\n```bash\n")[1].split("```")[0]
    lines = block.strip().splitlines()
    assert len(lines) <= 10

    config = scratch.Config(data="FOLDER", image_size=SIZE, epochs=EPOCHS, out="runs")
    run = scratch.main(config)
    run.rename("RUN")
    for line in lines:
        words = shlex.split(line)
        if words[1:3] == ["-m", "experiments.scratch"]:
            flags = dict(zip(words[3::2], words[4::2], strict=True))
            assert flags.keys() == {"--data", "--labels"}
            labels = flags["--labels"]
            better = scratch.main(
                scratch.Config(
                    data=flags["--data"], labels=labels, image_size=SIZE, epochs=EPOCHS, out="runs"
                )
            )
            better.rename("NEW_RUN")
        elif words[3] == "review":
            assert label_all(line, truth)
        elif words[3] == "clean":
            assert command(f"{line} --weights {WEIGHTS} --image-size 32") == 0
        else:
            capsys.readouterr()
            assert command(f"{line} --json since.json" if words[3] == "check" else line) == 0

    assert re.search(r"test accuracy \+0\.\d+ \(1 pair\)", capsys.readouterr().out)
    drift = json.loads(Path("since.json").read_text())["drift"]
    assert drift["p_value"] > 0.05
    before, after = (
        json.loads(Path(name, "splits.json").read_text()) for name in ("RUN", "NEW_RUN")
    )
    tested = [
        {p["sha256"] for p in splits["pictures"] if p["side"] == "test"}
        for splits in (before, after)
    ]
    assert tested[0] == tested[1]
    of_bytes = {p["sha256"]: p["class"] for p in after["pictures"]}
    assert len(of_bytes) > 300  # some of the heap are near-duplicates
    reviewed = {row.sha256 for row in read_corrections(Path("labels.csv"))}
    assert all(of_bytes[sha256] == truth[sha256] for sha256 in reviewed & of_bytes.keys())
    unseen = wrong.keys() - reviewed  # wrong labels that `clean` did not list stay
    assert all(of_bytes[sha256] == wrong[sha256] for sha256 in unseen & of_bytes.keys())
