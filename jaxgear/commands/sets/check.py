"""Check a folder of pictures before training."""

import argparse
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.files import to_json
from jaxgear.outputs import STDOUT, Output, outputs

SIZE = 128  # pixels of the pictures that checking leaves in the cache: those of most runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear check`."""
    parser.add_argument("folder", help="folder, table, archive or address, as --data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw pairs of near-duplicates there, as a PNG"
    )
    parser.add_argument(
        "--group-by",
        default="near-duplicates",
        help="what would stay in one split: near-duplicates, file, folder or a pattern in names",
    )
    parser.add_argument(
        "--since",
        type=Path,
        metavar="RUN",
        help="list what changed since that run was trained, and test whether the new pictures look "
        "like those that it knows but did not train on: a two-sample test (MMD) on features of its "
        "network, with a p-value by permutation; near-duplicates of known pictures do not count. "
        "p-values of classes are corrected by Holm's method. The folder may have no class folders",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="with --since: where the pictures of the run are now (default: as its config says)",
    )
    parser.add_argument(
        "--foreign",
        type=Path,
        metavar="FILE",
        help="with --since: draw the new pictures that are least like the known ones, as a PNG",
    )


def run(arguments: argparse.Namespace) -> int:
    """Lists problems of a folder. Exit 4 if a training run would stop at them."""
    sheet = arguments.sheet
    for flag in ("sheet", "foreign"):
        path = getattr(arguments, flag)
        if path not in (None, STDOUT) and path.suffix.lower() != ".png":
            raise UsageError(f"--{flag} {path}: is drawn as PNG; name it something.png")
    for flag in ("data", "foreign"):
        if getattr(arguments, flag) is not None and arguments.since is None:
            raise UsageError(f"--{flag}: needs --since RUN")
    import numpy as np

    from jaxgear.data.folder import HEAP, Records, labels_of, sizes_of
    from jaxgear.data.sources import read_new, read_source
    from jaxgear.data.splits import (
        NEAR_DUPLICATES,
        missing_classes,
        near_duplicate_groups,
        near_duplicates_across,
        near_duplicates_in_two_classes,
    )
    from jaxgear.data.splits.clean import conflicts
    from jaxgear.data.splits.groups import groups_of

    earlier = _earlier(arguments.since)
    size = 1 if arguments.folder.startswith("tfds:") else SIZE  # it may hold smaller images
    if earlier is None:
        folder = read_source(arguments.folder, size, min_classes=1)
    else:
        folder = read_new(arguments.folder, size)
    group_of = near_duplicate_groups(folder.records)
    kept_together = group_of
    if arguments.group_by != NEAR_DUPLICATES:
        kept_together = groups_of(folder.records, arguments.group_by)
    clashing = conflicts(folder)
    missing = missing_classes(folder)
    own = isinstance(folder.records, Records)  # a prepared set: walks over columns
    splits = folder.records.splits if own else [r.split or "train" for r in folder.records]
    numbers = np.bincount(labels_of(folder.records), minlength=len(folder.classes)).tolist()
    counts = dict(zip(folder.classes, numbers, strict=True))
    counts.pop(HEAP, None)
    sides = sizes_of(folder.records)
    findings = {
        "folder": arguments.folder,
        "pictures": len(folder.records),
        "classes": counts,
        "smallest_side": int(sides.min()) if sides.size else None,
        "largest_side": int(sides.max()) if sides.size else None,
        "refused": [{"path": r.path, "reason": r.reason} for r in folder.refused],
        "conflicts": [{"path": r.path, "reason": r.reason} for r in clashing],
        "ignored": list(folder.ignored),
        "tables": list(folder.tables),
        "missing": missing,
        "cannot_be_split": _hindrance(folder, kept_together),
        "duplicate_groups": _duplicates(folder.records, group_of),
        "alike_in_two_classes": _paths(near_duplicates_in_two_classes(folder.records, group_of)),
        "alike_on_two_sides": _paths(near_duplicates_across(folder.records, group_of, splits)),
        "fingerprint": folder.fingerprint,
    }
    if earlier is not None:
        from jaxgear.evaluation import influx

        findings["since"] = influx.since(earlier, folder)
    # Open them only now: they may lie in the folder, which is read by now.
    named = {"--json": arguments.json, "--sheet": sheet, "--foreign": arguments.foreign}
    with outputs(named) as files:
        _print(findings)
        if earlier is not None:
            findings["drift"] = _drift(earlier, folder, arguments.data, files.get("--foreign"))
        if "--sheet" in files:
            _draw_sheet(folder, group_of, files["--sheet"])
        if "--json" in files:
            files["--json"].write(to_json(findings))
    return 4 if folder.refused or clashing or missing.get("train") else 0


def _duplicates(records: Any, groups: Any) -> list[list[str]]:
    """The paths of each group that has several, in the order of the records."""
    import numpy as np

    from jaxgear.data.folder import paths_of, taken

    rows = np.sort(groups.runs.rows)  # of groups with several records, and a few others
    members: dict[str, list[str]] = {}
    for path, group in zip(paths_of(taken(records, rows)), groups.take(rows), strict=True):
        members.setdefault(group, []).append(path)
    return [paths for paths in members.values() if len(paths) > 1]


def _hindrance(folder: Any, groups: Any) -> str | None:
    """Why a training run could not split a folder, or None."""
    from jaxgear.data.folder import HEAP
    from jaxgear.data.splits.assign import assign_splits
    from jaxgear.errors import DataError

    if HEAP in folder.classes:
        return f"{folder.root}: has no class folders"
    try:
        assign_splits(folder, groups, seed=0)
    except DataError as error:
        return str(error)
    return None


def _drift(earlier: Any, folder: Any, source: str | None, sheet: Output | None) -> dict[str, Any]:
    """The value of `drift`; prints it and draws the most foreign pictures."""
    from jaxgear.evaluation.drift import find_drift

    drift = find_drift(earlier, folder, source)
    print("\n".join(drift.lines()))
    if sheet is not None:
        from jaxgear.evaluation.drift.sheet import foreign_sheet
        from jaxgear.evaluation.plots import figures as plots

        drawn = foreign_sheet(drift)
        if drawn is None:
            print("no new pictures were compared: no sheet of them is drawn")
        else:
            sheet.write(plots.png(drawn))
    return drift.to_json()


def _draw_sheet(folder, groups, file: Output) -> None:
    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots.contact_sheet import contact_sheet

    drawn = contact_sheet(folder, groups)
    if drawn is None:
        print("no near-duplicates: no sheet is drawn")
    else:
        file.write(plots.png(drawn))


def _earlier(path: Path | None) -> Any:
    if path is None:
        return None
    from jaxgear.evaluation.finished import FinishedRun

    return FinishedRun.read(path)


def _paths(pairs: Any) -> list[list[str]]:
    return [[record.path for record in pair] for pair in pairs]


def _print(findings: dict[str, Any]) -> None:
    """Prints the findings. Control characters in names are escaped."""
    from jaxgear.text import printable

    if findings["tables"]:
        tables = ", ".join(map(printable, findings["tables"]))
        print(f"pictures and labels are those of {tables}, not of class folders")
    print(f"{findings['pictures']} pictures in {len(findings['classes'])} classes")
    for name, count in findings["classes"].items():
        print(f"  {name:24} {count}")
    if findings["pictures"]:
        print(f"sides from {findings['smallest_side']} to {findings['largest_side']} pixels")
    for title in ("refused", "conflicts"):
        print(f"{title}: {len(findings[title])}")
        for row in findings[title]:
            print(f"  {printable(row['path'])}: {row['reason']}")
    for split, names in findings["missing"].items():
        if names:
            print(f"warning: no {split} pictures of {', '.join(names)}")
    if findings["cannot_be_split"]:
        print(f"training would stop: {findings['cannot_be_split']}")
    print(f"ignored (hidden or system files): {len(findings['ignored'])}")
    print(f"groups of near-duplicates: {len(findings['duplicate_groups'])}")
    for paths in findings["duplicate_groups"]:
        print(f"  {', '.join(map(printable, paths))}")
    alike = {"in two classes": "alike_in_two_classes", "in two splits": "alike_on_two_sides"}
    for words, key in alike.items():
        for path, other in findings[key]:
            print(f"warning: near-duplicates {words}: {printable(path)} and {printable(other)}")
    if "since" in findings:
        from jaxgear.evaluation import influx

        print("\n".join(influx.lines(findings["since"])))
