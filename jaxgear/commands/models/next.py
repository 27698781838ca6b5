"""Choose the new pictures whose labels would help most."""

import argparse
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.outputs import Output, outputs, to_stderr

COLUMNS = ("path", "score")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear next`."""
    parser.add_argument("model", type=Path, metavar="RUN", help="run, or bundle")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="NEW",
        help="new pictures: files, folders, patterns in quotes, tables of `predict --crops`",
    )
    parser.add_argument(
        "--count", type=int, default=50, metavar="N", help="pictures to choose (default 50)"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a row for each chosen picture, the best first: path, score (- is stdout). "
        "`jaxgear review RUN NEW --queue FILE` shows them. score, 0 to 1, is uncertainty times "
        "half the distance to the nearest picture above, by the network's features. Without "
        "it the paths are printed",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="corrections file, or export of Label Studio: pictures that it names are left out, "
        "and near-duplicates of them",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="the pictures that the run was trained and tested on, if they are no longer where it "
        "says; they and near-duplicates of them are left out",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes or prints what it chose. Unreadable pictures are named on stderr; then exit 4."""
    if not arguments.images:
        raise UsageError("no pictures: name files, folders or patterns after the run")
    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count}: must be at least 1")
    with outputs({"--csv": arguments.csv}) as files:
        return _choose(arguments, files.get("--csv"))


def _choose(arguments: argparse.Namespace, output: Output | None) -> int:
    from jaxgear.data.labels import read_labels
    from jaxgear.data.sources import find_pictures
    from jaxgear.evaluation.acquisition import choose, find_candidates
    from jaxgear.evaluation.network_features import Network
    from jaxgear.evaluation.own_pictures import known_descriptors
    from jaxgear.text import printable

    files = find_pictures(arguments.images)
    labels = () if arguments.labels is None else read_labels(arguments.labels)
    network = Network.load(arguments.model)
    known = known_descriptors(arguments.model, network.bundle, arguments.data)
    ours = len(network.bundle.pictures)
    if (missing := ours - len(known or ())) > 0:
        to_stderr(
            f"note: {missing} of the {ours} pictures that the model was trained and tested on are "
            f"not found ({arguments.data or arguments.model}): only exact copies of those are left "
            "out; name their folder with --data"
        )
    place = Path() if arguments.labels is None else arguments.labels.parent
    found = find_candidates(files, network.bundle, known or (), labels, place)
    for file in found.folder.refused:
        to_stderr(f"error: {printable(file.path)}: {file.reason}")
    chosen = choose(network, found.folder, arguments.count)
    if output is None:
        for one in chosen:
            print(printable(one.record.path))
    else:
        output.write(table(chosen))
    left = len(found.folder.records)
    others = {
        "are in the data of the run, or like one there": found.known,
        "are labelled, or like a labelled one": found.labelled,
        "are like another one": found.alike,
    }
    if reasons := ", ".join(f"{count} {why}" for why, count in others.items() if count):
        to_stderr(f"note: {left} of {found.readable} pictures to choose from; {reasons}")
    if left < arguments.count:
        to_stderr(f"note: {left} pictures are left, fewer than --count {arguments.count}")
    return 4 if found.folder.refused else 0


def table(chosen: Any) -> str:
    """The rows as CSV, with the columns `COLUMNS`."""
    from jaxgear.text import text_of, to_csv

    return to_csv([COLUMNS, *((text_of(o.record.path), f"{o.score:.6f}") for o in chosen)])
