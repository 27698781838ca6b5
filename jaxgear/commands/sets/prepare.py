"""Prepare a folder as a TensorFlow Datasets set, checked and split; repeat it to add pictures."""

import argparse
import contextlib
import re

from jaxgear.errors import UsageError
from jaxgear.paths import is_address, place_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear prepare`."""
    parser.add_argument("folder", help="folder, table, archive or address")
    parser.add_argument(
        "out",
        type=place_argument,
        help="where to write it, a folder or an address (s3://bucket/sets). Train on it with "
        "--data tfds:gear@OUT, which takes the newest OUT/gear/<version>; remove older ones when "
        "no run reads them",
    )
    parser.add_argument(
        "--size", type=int, help="store pictures letterboxed at this many pixels, for --image-size"
    )
    parser.add_argument("--workers", type=int, help="processes that decode (one for each core)")
    parser.add_argument("--seed", type=int, default=0, help="decides the split")
    parser.add_argument(
        "--group-by",
        default="near-duplicates",
        help="what stays in one split: near-duplicates, file, folder or a pattern in names",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="decode part I of N alone, as other machines decode the others; give all of them the "
        "same flags, and again after a kill",
    )
    parser.add_argument(
        "--compare",
        metavar="I/N",
        help="when all N parts are decoded: look for near-duplicates in range I of N alone, as "
        "other machines do in the others; --join does what was left out",
    )
    parser.add_argument(
        "--join", action="store_true", help="write the set from what all parts have decoded"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="decode, look for near-duplicates and write on the nodes of this Ray cluster: auto, "
        "or HOST:6379; they must have FOLDER and OUT under the same paths (for an address, the "
        "cache)",
    )
    parser.add_argument(
        "--on-bad",
        choices=["stop", "skip"],
        default="stop",
        help="on unusable pictures: stop with a list, or go on without them (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the set. Its splits are the ones of a run with the same seed."""
    for flag in ("size", "workers"):
        value = getattr(arguments, flag)
        if value is not None and not 1 <= value <= 4096:
            raise UsageError(f"--{flag} {value}: must be from 1 to 4096")
    part, compared = (_part(flag, getattr(arguments, flag)) for flag in ("part", "compare"))
    if sum(map(bool, (part, compared, arguments.join))) > 1:
        raise UsageError("--part decodes, --compare groups and --join writes; give one of them")
    if (part or compared) and arguments.ray:
        raise UsageError("--ray has its own parts; leave out --part and --compare")
    if is_address(arguments.out) and (part or compared or arguments.join):
        raise UsageError(f"{arguments.out}: parts meet in a folder that all machines share")
    from jaxgear.cluster import Cluster
    from jaxgear.data.prepare.parts import compare_part
    from jaxgear.data.prepare.prepared import prepare, prepare_part
    from jaxgear.data.prepare.remote import prepare_at
    from jaxgear.notebook.progress import bar

    options = {name: getattr(arguments, name) for name in ("size", "workers", "seed", "group_by")}
    if compared:
        compare_part(arguments.out, *compared, size=arguments.size)
        return
    with bar("decoding") as tick:
        if part:
            prepare_part(arguments.folder, arguments.out, *part, **options, tick=tick)
            return
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(Cluster(arguments.ray)) if arguments.ray else None
            write = prepare_at if is_address(arguments.out) else prepare
            write(
                *(arguments.folder, arguments.out),
                **options,
                on_bad=arguments.on_bad,
                join=arguments.join,
                cluster=cluster,
                tick=tick,
            )
    print(f"train on it with --data tfds:gear@{arguments.out}")


def _part(flag: str, text: str | None) -> tuple[int, int] | None:
    """The numbers of `--part I/N` or `--compare I/N`; None: it is not given."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(f"--{flag} {text}: must be I/N, with I from 1 to N")
    return part, parts
