"""What changed since a run: against sets of (path, hash), and of a prepared set by its columns."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_runs import untrained
from pictures import encoded, scene, write_set

from jaxgear import cli
from jaxgear.data.folder import Folder, Record, fingerprint
from jaxgear.data.folder.records import Table
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.recorded import Pictures, SplitRow
from jaxgear.data.splits import split_folder
from jaxgear.evaluation import influx
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.text import stable_key


def quiet(line: str) -> None:
    pass


def folder_of(images: dict[str, str]) -> Folder:
    """Records with paths and hashes, without files; the class is the part before the slash."""
    classes = tuple(sorted({path.split("/")[0] for path in images}))
    records = tuple(
        Record(path, sha256, classes.index(path.split("/")[0]), None, 9, 9, b"", sha256[:12])
        for path, sha256 in sorted(images.items(), key=lambda item: stable_key(item[0]))
    )
    return Folder(Path("data"), classes, records, (), (), fingerprint(classes, records))


def run_on(folder: Folder, seed: int, splits: list[str] | None = None) -> FinishedRun:
    own = splits or list(split_folder(folder, seed=seed)[1])
    pictures = Pictures(
        [
            SplitRow(record.path, record.sha256, folder.classes[record.label], record.group, split)
            for record, split in zip(folder.records, own, strict=True)
        ]
    )
    config = {"seed": seed}
    return FinishedRun(Path("run"), config, {}, "", "", folder.classes, pictures, (), None)


@pytest.mark.parametrize("seed", range(5))
def test_an_image_is_known_by_its_path_and_its_bytes(seed: int):
    """Added, removed, edited, renamed and moved images, some left out, of one class less."""
    rng = np.random.default_rng(seed)
    hashes = [rng.bytes(32).hex() for _ in range(400)]
    before = {f"{'abc'[i % 3]}/{i:03}e\u0301.png": hashes[i] for i in range(150)}
    now = dict(before)
    for kind, i in enumerate(rng.permutation(150)[:80].tolist()):
        path = list(before)[i]
        sha256 = now.pop(path)
        if kind % 4 == 1:
            now[path] = hashes[200 + i]  # edited
        elif kind % 4 == 2:
            now[path.replace(".png", " b.png")] = sha256  # renamed
        elif kind % 4 == 3:
            now["d" + path[1:]] = sha256  # moved
    now |= {f"d/new {i}.png": hashes[i] for i in range(350, 400)}
    now = {path: sha256 for path, sha256 in now.items() if path[0] != "a"}
    names = ["train", "val", "test", "left_out"]
    given = rng.choice(names, 150, p=[0.5, 0.2, 0.2, 0.1]).tolist()
    run = run_on(folder_of(before), seed, given)
    folder = folder_of(now)
    found = influx.since(run, folder)

    old = {(row.path, row.sha256): row.split for row in run.pictures}
    splits = split_folder(folder, seed=seed)[1]
    own = dict(zip(((r.path, r.sha256) for r in folder.records), splits, strict=True))
    stayed = [key for key in own if old.get(key, "left_out") != "left_out"]
    assert found["pictures"] == {
        "before": 150,
        "now": len(now),
        "added": len(own.keys() - old.keys()),
        "removed": len(old.keys() - own.keys()),
    }
    first, last = Counter(path[0] for path in before), Counter(path[0] for path in now)
    added = Counter(path[0] for path, _ in own.keys() - old.keys())
    assert found["classes"] == {
        name: {"before": first[name], "now": last[name], "added": added[name]} for name in "abcd"
    }
    assert found["sides"] == {
        name: {"before": given.count(name), "now": list(splits).count(name)} for name in names
    }
    assert found["moved"] == [p for p, h in stayed if own[p, h] not in (old[p, h], "left_out")]
    assert found["left_out"] == [p for p, h in stayed if own[p, h] == "left_out"]
    assert len(found["moved"]) > 10
    assert not found["only_new"]


def test_images_beside_the_old_ones_are_known_by_their_bytes():
    before = {f"a/{i}.png": f"{i:02x}" * 32 for i in range(1, 40)}
    run = run_on(folder_of(before), 0)
    new = {"a/new.png": "ff" * 32, "b/copy.png": "03" * 32, "b/1.png": "ee" * 32}
    found = influx.since(run, folder_of(new))
    assert found["only_new"]
    assert found["pictures"] == {"before": 39, "now": 41, "added": 2, "removed": 0}
    assert found["classes"] == {
        "a": {"before": 39, "now": 40, "added": 1},
        "b": {"before": 0, "now": 1, "added": 1},
    }


def test_a_prepared_set_is_compared_without_an_object_an_image(tmp_path, monkeypatch):
    """Counts, drift and the sheet of near-duplicates."""
    root = write_set(tmp_path / "set", {"axes": 24, "boots": 24})
    run = untrained(tmp_path / "runs", str(root), size=16)
    (root / "axes" / "copy.png").write_bytes(encoded(scene(1)))
    write_set(root, {"axes": 8, "boots": 12}, start=1000)
    next((root / "boots").iterdir()).unlink()
    prepare(root, tmp_path / "out", size=48, workers=1, say=quiet)
    source = f"tfds:gear@{tmp_path / 'out'}"
    flags = ["--data", str(root), "--since", str(run), "--sheet", str(tmp_path / "sheet.png")]

    def found(folder: str) -> dict:
        with pytest.raises(SystemExit) as stop:
            cli.main(["check", folder, *flags, "--json", str(tmp_path / "a.json")])
        assert stop.value.code == 0
        return json.loads((tmp_path / "a.json").read_text())

    theirs = found(str(root))
    (tmp_path / "sheet.png").unlink()
    walk = Table.records

    def of_a_part(self, rows):
        assert len(rows) < len(self.label) / 2
        return walk(self, rows)

    monkeypatch.setattr(Table, "records", of_a_part)
    ours = found(source)
    assert ours["since"]["pictures"] == theirs["since"]["pictures"]
    assert ours["since"]["classes"] == theirs["since"]["classes"]
    assert ours["drift"]["n"] == theirs["drift"]["n"] == 20
    assert (ours["smallest_side"], ours["largest_side"]) == (48, 64)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
