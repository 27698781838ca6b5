"""Look through a folder of pictures before training."""

import argparse
from pathlib import Path

from jaxgear.files import to_json, write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear check`."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")


def run(arguments: argparse.Namespace) -> int:
    """Lists what a training run would meet; exit 4 if it would stop."""
    from jaxgear.data.folder import conflicts, read_folder
    from jaxgear.data.splits import near_duplicate_groups

    folder = read_folder(arguments.folder, min_classes=1)
    groups: dict[str, list[str]] = {}
    group_of = near_duplicate_groups(folder.records)
    for record, group in zip(folder.records, group_of, strict=True):
        groups.setdefault(group, []).append(record.path)
    alike = [paths for paths in groups.values() if len(paths) > 1]
    clashing = conflicts(folder)
    counts = dict.fromkeys(folder.classes, 0)
    for record in folder.records:
        counts[folder.classes[record.label]] += 1
    sides = [side for r in folder.records for side in (r.height, r.width)]
    found = {
        "folder": str(arguments.folder),
        "pictures": len(folder.records),
        "classes": counts,
        "smallest_side": min(sides, default=None),
        "largest_side": max(sides, default=None),
        "refused": [{"path": r.path, "reason": r.reason} for r in folder.refused],
        "conflicts": [{"path": r.path, "reason": r.reason} for r in clashing],
        "ignored": list(folder.ignored),
        "duplicate_groups": alike,
        "fingerprint": folder.fingerprint,
    }
    print(f"{found['pictures']} pictures in {len(counts)} classes")
    for name, count in counts.items():
        print(f"  {name:24} {count}")
    if sides:
        print(f"sides from {found['smallest_side']} to {found['largest_side']} pixels")
    for title in ("refused", "conflicts"):
        print(f"{title}: {len(found[title])}")
        for row in found[title]:
            print(f"  {row['path']}: {row['reason']}")
    print(f"ignored (hidden or system files): {len(folder.ignored)}")
    print(f"groups of near-duplicates: {len(alike)}")
    for paths in alike:
        print(f"  {', '.join(paths)}")
    if arguments.json:
        write_output("--json", arguments.json, to_json(found))
    return 4 if folder.refused or clashing else 0
