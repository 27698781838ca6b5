"""Write a trained model as StableHLO, which jax runs without jaxgear."""

import argparse
from pathlib import Path

from jaxgear.errors import UsageError
from jaxgear.files import to_json, write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear export`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("file", type=Path, help="the artefact; its card is FILE.json")


def run(arguments: argparse.Namespace) -> None:
    """Writes the artefact, and a card that says what goes in and what comes out."""
    from jaxgear import export
    from jaxgear.bundle import Bundle

    file = arguments.file
    if not file.absolute().parent.is_dir():  # before the work, not after it
        raise UsageError(f"{file}: no folder {file.parent}")
    bundle = Bundle.load(arguments.model)
    artefact = bytes(export.export(bundle))
    card = file.with_name(file.name + ".json")
    write_output("FILE", file, artefact)
    write_output("FILE", card, to_json(export.card(bundle, artefact, file.name)))
    print(f"{file}\t{len(artefact) / 1e6:.1f} MB for {', '.join(export.PLATFORMS)}; card {card}")
