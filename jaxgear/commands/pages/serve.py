"""Classify pictures on a local page: drop, paste or choose them."""

import argparse
from pathlib import Path
from typing import Any

from jaxgear.commands.pages.server import add_server_arguments, serve_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear serve`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help="run folder, or bundle")
    add_server_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM."""

    def build() -> Any:
        from jaxgear.bundle import Bundle
        from jaxgear.serving import app
        from jaxgear.serving.answer import Classifier

        classifier = Classifier(Bundle.load(arguments.model))
        return app.build(classifier, arguments.model.resolve().name, arguments.host)

    serve_page(arguments, build)
