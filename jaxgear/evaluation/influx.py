"""What changed in a data folder since a run was trained on it: classes, splits, near-duplicates."""

from collections import Counter
from typing import Any

from jaxgear.data.folder import HEAP, Folder
from jaxgear.data.folder.names import ALL
from jaxgear.data.splits import LEFT_OUT, NEAR_DUPLICATES, require_clean, split_folder
from jaxgear.evaluation.finished import FinishedRun


def since(run: FinishedRun, folder: Folder) -> dict[str, Any]:
    """Numbers of images by class and split, before and now, with the seed of the run.

    Keys: `run`, `pictures` {before, now, added, removed}; `classes`, a row each {before, now,
    added}; `sides` {before, now}, by split; `moved`, paths of old images that are in another split
    now; `left_out`, paths of old images that a new near-duplicate keeps out; `only_new`, whether
    `folder` holds none of the old images in their places. Then the old images are assumed to stay:
    `now` counts them too, and the splits of the new images are unknown (None). Of a folder without
    classes (`read_heap`), `classes` is empty. Unusable images do not count.

    Raises:
        DataError: a class that is too small to be split.
    """
    folder = require_clean(folder, "skip")
    here = {(record.path, record.sha256) for record in folder.records}
    if here.isdisjoint(zip(run.pictures.paths, run.pictures.sha256, strict=True)):
        return _beside(run, folder)
    group_by = run.config.get("group_by", NEAR_DUPLICATES)  # older runs have no such flag
    _, splits = split_folder(folder, seed=int(run.config["seed"]), group_by=group_by)
    old = {(picture.path, picture.sha256): picture.split for picture in run.pictures}
    now = {(r.path, r.sha256): split for r, split in zip(folder.records, splits, strict=True)}
    stayed = [key for key in now if key in old and old[key] != LEFT_OUT]
    names = [folder.classes[record.label] for record in folder.records]
    before, after = Counter(picture.name for picture in run.pictures), Counter(names)
    added = Counter(
        name
        for record, name in zip(folder.records, names, strict=True)
        if (record.path, record.sha256) not in old
    )
    return {
        "run": str(run.path),
        "pictures": {
            "before": len(old),
            "now": len(now),
            "added": len(now.keys() - old.keys()),
            "removed": len(old.keys() - now.keys()),
        },
        "classes": {
            name: {"before": before[name], "now": after[name], "added": added[name]}
            for name in sorted(before | after)
        },
        "sides": {
            name: {
                "before": sum(split == name for split in old.values()),
                "now": sum(split == name for split in now.values()),
            }
            for name in ALL
        },
        "moved": [key[0] for key in stayed if now[key] not in (old[key], LEFT_OUT)],
        "left_out": [key[0] for key in stayed if now[key] == LEFT_OUT],
        "only_new": False,
    }


def _beside(run: FinishedRun, folder: Folder) -> dict[str, Any]:
    """`since` for a folder of new images alone. Copies of old images are not new."""
    here = {record.sha256 for record in folder.records}
    known = here.intersection(run.pictures.sha256)
    before, splits = Counter[str](), Counter[str]()
    for (name, split), number in run.pictures.counts().items():
        before[name] += number
        splits[split] += number
    added = Counter(
        folder.classes[record.label] for record in folder.records if record.sha256 not in known
    )
    return {
        "run": str(run.path),
        "pictures": {
            "before": before.total(),
            "now": before.total() + added.total(),
            "added": added.total(),
            "removed": 0,
        },
        "classes": {
            name: {"before": before[name], "now": before[name] + added[name], "added": added[name]}
            for name in sorted(before | added)
            if HEAP not in folder.classes
        },
        "sides": {name: {"before": splits[name], "now": None} for name in ALL},
        "moved": [],
        "left_out": [],
        "only_new": True,
    }


def lines(changes: dict[str, Any]) -> list[str]:
    """The result of `since` as lines to print."""
    count = changes["pictures"]
    text = [
        f"since {changes['run']}: {count['before']} pictures then, {count['now']} now "
        f"({count['added']} added, {count['removed']} removed; an edited one is both)"
    ]
    for name, row in changes["classes"].items():
        shares = (row[when] / max(1, count[when]) for when in ("before", "now"))
        before, now = (f"{share:6.1%}" for share in shares)
        text.append(f"  {name:24} {row['before']:6} {before}  ->{row['now']:6} {now}")
    if changes["only_new"]:
        text.append(
            "this folder holds none of the old pictures: they are assumed to stay where they are; "
            "put old and new in one folder to see the splits of the new ones"
        )
        return text
    splits = (f"{name} {row['before']} -> {row['now']}" for name, row in changes["sides"].items())
    text.append(f"splits with the seed of that run: {', '.join(splits)}")
    text.append(
        f"  {len(changes['moved'])} old pictures are in another split now, "
        f"{len(changes['left_out'])} are left out because of a new near-duplicate"
    )
    return text
