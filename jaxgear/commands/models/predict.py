"""Classify new pictures."""

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.outputs import STDOUT, Output, outputs, to_stderr
from jaxgear.paths import is_address, place_argument

MOST_CROPS, LIMIT_CROPS = 20, 500  # of a photograph: unless told otherwise, and at most
ASKED = 5  # a grid should show at least this many new pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear predict`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help="run folder, or bundle")
    files = "files, folders, patterns in quotes, or addresses"
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=files)
    to_file = {"type": place_argument, "metavar": "FILE"}
    parser.add_argument(
        "--csv",
        **to_file,
        help="write a row for each picture: path, class, probability, a column for each class, "
        "score, refused (a class named like another column becomes class:NAME; - is stdout; FILE "
        "may be an address, s3://bucket/rows.csv)",
    )
    parser.add_argument("--grid", **to_file, help="draw the pictures with titles there, PNG")
    parser.add_argument("--json", **to_file, help="write all figures of each picture there")
    parser.add_argument(
        "--crops",
        type=int,
        nargs="?",
        const=MOST_CROPS,
        metavar="N",
        help="classify at most N crops of each photograph that may hold gear (default %(const)s); "
        "--csv has a row for each crop of gear: path, left, top, right, bottom (fractions), class, "
        "probability (class none: no crop is gear), --grid shows the boxes, --sort places crops",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="predict on the nodes of this Ray cluster: auto, or HOST:6379; they must have the "
        "run, the pictures and the cache (for addresses) under the same paths",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at once (default 64)")
    parser.add_argument(
        "--accept",
        type=float,
        metavar="SHARE",
        help="accept this share of pasted validation pictures as gear, 0 to 1 (default 0.95; 1 "
        "accepts all of them); for models trained with --backgrounds",
    )
    parser.add_argument(
        "--label-studio",
        **to_file,
        help="write tasks with predictions there, JSON that Label Studio imports; --labels of an "
        "experiment reads its export",
    )
    parser.add_argument(
        "--sort",
        type=Path,
        metavar="OUT",
        help="place every picture once, as a hard link, in OUT/<class>, OUT/none, OUT/review or "
        "OUT/duplicates (of the model's pictures, or of one before it); pictures that "
        "OUT/sorted.csv names are left as they are",
    )
    parser.add_argument(
        "--review-below",
        type=float,
        metavar="P",
        help="with --sort: pictures whose class has a probability below P go to OUT/review "
        "(default 0.5)",
    )
    parser.add_argument("--copy", action="store_true", help="with --sort: copies, not hard links")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="with --sort: the pictures that the run was trained on, if "
        "they are no longer where it says",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each picture: class and probability, or `none` and its score if it is
    refused as no gear. Unreadable pictures are named on stderr; then exit 4.
    """
    if not arguments.images:
        raise UsageError("no pictures: name files, folders or patterns after the run")
    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size {arguments.batch_size}: must be at least 1")
    if arguments.crops is not None and not 1 <= arguments.crops <= LIMIT_CROPS:
        raise UsageError(f"--crops {arguments.crops}: crops of a photograph, 1 to {LIMIT_CROPS}")
    if arguments.crops and arguments.label_studio:
        raise UsageError("--label-studio: its tasks are whole files; leave out --crops")
    if arguments.accept is not None and not 0 <= arguments.accept <= 1:
        raise UsageError(f"--accept {arguments.accept}: a share, 0 to 1")
    if arguments.grid not in (None, STDOUT) and Path(arguments.grid).suffix.lower() != ".png":
        raise UsageError(f"--grid {arguments.grid}: the grid is a PNG, name it so")
    of_sort = arguments.copy or arguments.data or arguments.review_below is not None
    if of_sort and not arguments.sort:
        raise UsageError("--review-below, --copy and --data go with --sort OUT")
    if arguments.sort and any(map(is_address, arguments.images)):
        raise UsageError("--sort: it links pictures of this machine; leave out addresses")
    if not 0 <= (arguments.review_below or 0) <= 1:
        raise UsageError(f"--review-below {arguments.review_below}: a probability, 0 to 1")
    flags = ("csv", "json", "grid", "label-studio")
    named = {f"--{flag}": getattr(arguments, flag.replace("-", "_")) for flag in flags}
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(outputs(named))
        return _predict(arguments, files, stack)


def _predict(
    arguments: argparse.Namespace, outputs: dict[str, Output], stack: contextlib.ExitStack
) -> int:
    from jaxgear.bundle import Bundle
    from jaxgear.commands.models.nodes import with_addresses
    from jaxgear.data.crops import parted
    from jaxgear.data.sources import find_pictures, local_copies
    from jaxgear.prediction.label_studio import LabelStudioTasks, interface
    from jaxgear.prediction.tables import CropsTable, CsvTable, JsonTable
    from jaxgear.text import printable

    if "--grid" in outputs:
        from jaxgear.evaluation.plots import crops, tiles
        from jaxgear.evaluation.plots import figures as plots

    sources, addresses = local_copies(arguments.images)
    files = find_pictures(sources)
    if arguments.sort:
        _check_apart(arguments.sort, arguments.images, files)
    bundle = Bundle.load(arguments.model)
    if arguments.accept is not None:
        bundle = bundle.accepting(arguments.accept)
    table = CsvTable if arguments.crops is None else CropsTable
    writers = {"--csv": table, "--json": JsonTable, "--label-studio": LabelStudioTasks}
    takers = [table(outputs[f], bundle.classes) for f, table in writers.items() if f in outputs]
    sorter = None
    if arguments.sort:
        sorter = stack.enter_context(_sorter(arguments, bundle))
        left = sorter.left(files)
        if count := len(files) - len(left):
            to_stderr(
                f"note: {count} of {len(files)} are sorted already ({arguments.sort}/sorted.csv)"
            )
        files = files if outputs else left
        takers.append(sorter)
    if arguments.crops is not None and bundle.accept_from is None:
        from jaxgear.evaluation.no_gear.refusal import ACCEPTS_ALL

        to_stderr(f"note: {arguments.model} {ACCEPTS_ALL}")
    shown, splits, unreadable, refused = {}, Counter(), 0, 0
    found = _predictions(arguments, bundle, files, describe=sorter is not None)
    for prediction in with_addresses(found, addresses):
        path = printable(prediction.path)
        if prediction.probs is None:
            unreadable += 1
            to_stderr(f"error: {path}: {prediction.error}")
        else:
            sure = prediction.score if prediction.refused else prediction.probs.max()
            print(f"{path}\t{prediction.name(bundle.classes)}\t{sure:.4f}", flush=True)
            splits[prediction.split] += 1
            refused += prediction.refused
        for taker in takers:
            taker.add(prediction)
        of = prediction.path if arguments.crops is None else parted(prediction.path)[0]
        if "--grid" in outputs and (of in shown or len(shown) < tiles.MOST):
            shown.setdefault(of, []).append(prediction)
    for taker in takers:
        taker.end()
    if sorter is not None:
        places = ", ".join(f"{count} {folder}" for folder, count in sorted(sorter.counts().items()))
        to_stderr(f"sorted into {arguments.sort}: {places or 'nothing'}")
    if "--label-studio" in outputs:
        to_stderr(f"note: labelling interface for Label Studio: {interface(bundle.classes)}")
    if refused:
        from jaxgear.evaluation.no_gear.refusal import promise

        to_stderr(
            f"note: {refused} of {len(files)} are taken for no gear: {promise(bundle)}; "
            "--accept SHARE changes it"
        )
    del splits[None]
    if splits:
        counts = ", ".join(f"{count} {split}" for split, count in splits.items())
        to_stderr(
            f"note: {splits.total()} of {len(files)} are in the data of this model ({counts})"
        )
    if "--grid" in outputs:
        if arguments.crops is None:
            grid = tiles.prediction_grid(bundle, [one for one, *_ in shown.values()], len(files))
        else:
            grid = crops.crops_grid(bundle, list(shown.values()), len(files))
        outputs["--grid"].write(plots.png(grid, dpi=160))
        if (readable := len(files) - unreadable) < ASKED:
            count = f"{readable} new picture{'s' * (readable != 1)}"
            to_stderr(f"note: --grid shows {count}; {ASKED} or more say more of a model")
    return 4 if unreadable else 0


def _predictions(
    arguments: argparse.Namespace, bundle: Any, files: list[Any], *, describe: bool
) -> Iterator[Any]:
    from jaxgear.commands.models.nodes import predictions, predictions_on

    size, options = arguments.batch_size, {"crops": arguments.crops, "describe": describe}
    if not arguments.ray:
        return predictions(bundle, files, size, **options)
    model = arguments.model.resolve()
    return predictions_on(arguments.ray, model, files, size, accept=arguments.accept, **options)


def _check_apart(out: Path, sources: list[str], files: list[Any]) -> None:
    """Raises UsageError if pictures would be sorted into the folder that they are read from."""
    place = Path(os.path.realpath(out))
    folders = [Path(os.path.realpath(source)) for source in sources if Path(source).is_dir()]
    below = [file for file in files if isinstance(file, Path) and file.is_relative_to(out)]
    if below or any(place.is_relative_to(folder) for folder in folders):
        raise UsageError(f"--sort {out}: is not apart from the pictures; choose a place outside")


def _sorter(arguments: argparse.Namespace, bundle: Any) -> Any:
    from jaxgear.prediction.sorting import Sorter

    return Sorter(
        arguments.sort,
        bundle.classes,
        review_below=0.5 if arguments.review_below is None else arguments.review_below,
        copy=arguments.copy,
        known=_descriptors(arguments, bundle),
    )


def _descriptors(arguments: argparse.Namespace, bundle: Any) -> list[bytes]:
    """Descriptors of the pictures that the model knows, if they are there."""
    from jaxgear.evaluation.own_pictures import known_descriptors

    known = known_descriptors(arguments.model, bundle, arguments.data)
    if known is None:
        to_stderr(
            f"note: the pictures of {arguments.model} are not found, only exact copies of them are "
            "recognised; name their folder with --data"
        )
    return known or []
