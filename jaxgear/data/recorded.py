"""What a run records of its set in `splits.json`, and how a set differs from the recorded one."""

from dataclasses import replace
from typing import Any

from jaxgear.data.dataset import Dataset, PseudoLabel
from jaxgear.data.folder import hashes_of
from jaxgear.data.splits import KnownPictures
from jaxgear.data.unlabelled import named


def describe(dataset: Dataset) -> dict[str, Any]:
    """The content of `splits.json`: the group and split of every image."""
    folder = dataset.folder
    rows = zip(folder.records, dataset.groups, dataset.splits, strict=True)
    return {
        "fingerprint": folder.fingerprint,
        "classes": list(folder.classes),
        "pictures": [
            {
                "path": record.path,
                "sha256": record.sha256,
                "class": folder.classes[record.label],
                "group": group,
                "side": split,
            }
            for record, group, split in rows
        ],
        **({"corrections": list(folder.changes)} if folder.changes else {}),
        **({"unlabelled": describe_unlabelled(dataset)} if dataset.unlabelled else {}),
    }


def describe_unlabelled(dataset: Dataset) -> list[dict[str, Any]]:
    """The images without labels, each with its pseudo-label."""
    return [
        {"path": record.path, "sha256": record.sha256}
        | {"pseudo_label": dataset.classes[label], "probability": probability, "used": used}
        | {"gear": gear}
        for record, (label, probability, used, gear) in zip(
            dataset.unlabelled.records, dataset.pseudo_labels, strict=True
        )
    ]


def known_pictures(dataset: Dataset) -> KnownPictures:
    """The images that a bundle recognises, with their splits: all, and those without labels that
    were trained on.
    """
    sha256, splits = hashes_of(dataset.folder.records), dataset.splits
    if more := [record.sha256 for record, _ in named(dataset)]:
        sha256, splits = [*sha256, *more], [*splits, *["train"] * len(more)]
    return KnownPictures.of(sha256, splits)


def without_trained(recorded: dict[str, Any], dataset: Dataset) -> Dataset:
    """`dataset` without validation and test images that the run was trained on.

    `recorded` is the run's `splits.json`. An edited image has another hash, so it may have moved
    from the training split to another one; such images are left out.
    """
    trained = {row["path"] for row in recorded["pictures"] if row["side"] == "train"}
    splits = tuple(
        "left_out" if split in ("val", "test") and record.path in trained else split
        for record, split in zip(dataset.folder.records, dataset.splits, strict=True)
    )
    return replace(dataset, splits=splits)


def changed_pictures(recorded: dict[str, Any], dataset: Dataset) -> list[str]:
    """Differences between `dataset` and the set in `splits.json`: one line per image."""
    changes = []
    if recorded["fingerprint"] != dataset.folder.fingerprint:
        before = {row["path"]: (row["sha256"], row["class"]) for row in recorded["pictures"]}
        now = {r.path: (r.sha256, dataset.classes[r.label]) for r in dataset.folder.records}
        changes += _differences(before, now, "")
    before = {row["path"]: row["sha256"] for row in recorded.get("unlabelled", [])}
    unlabelled = dataset.unlabelled.records if dataset.unlabelled else ()
    return changes + _differences(before, {r.path: r.sha256 for r in unlabelled}, "unlabelled, ")


def with_recorded_labels(recorded: dict[str, Any], dataset: Dataset) -> Dataset:
    """`dataset` with the pseudo-labels in `splits.json`. Images without one there are not used."""
    known = {
        row["sha256"]: PseudoLabel(
            dataset.classes.index(row["pseudo_label"]),
            row["probability"],
            row["used"],
            row.get("gear", True),
        )
        for row in recorded.get("unlabelled", [])
    }
    unused = PseudoLabel(0, 0.0, False)
    labels = (known.get(record.sha256, unused) for record in dataset.unlabelled.records)
    return replace(dataset, pseudo_labels=tuple(labels))


def _differences(before: dict[str, Any], now: dict[str, Any], kind: str) -> list[str]:
    word = lambda path: (  # noqa: E731
        "added" if path not in before else "removed" if path not in now else "edited"
    )
    return [
        f"{path} ({kind}{word(path)})"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]
