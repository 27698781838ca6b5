"""Look at pictures on a local page, and correct their labels."""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxgear.commands.pages.server import add_server_arguments, serve_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear review`."""
    parser.add_argument("model", type=Path, metavar="RUN", help="run, or bundle with NEW pictures")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="NEW",
        help="new pictures: files, folders, patterns in quotes (default: the run's own)",
    )
    parser.add_argument(
        "--queue",
        type=Path,
        metavar="CSV",
        help="show the pictures of its column `path`, in its order, with its columns score, class, "
        "probability, label, suggested and kind",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="corrections file, to which decisions are added (RUN/corrections.csv)",
    )
    parser.add_argument("--by", metavar="NAME", help="who decides (the login name)")
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the run's pictures are now, if they have moved"
    )
    add_server_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    sessions = []

    def build() -> Any:
        from jaxgear.serving.review.opening import open_session
        from jaxgear.serving.review.page import app
        from jaxgear.text import printable

        session, notes = open_session(
            arguments.model,
            arguments.images,
            data=arguments.data,
            queue=arguments.queue,
            labels=arguments.labels,
            by=arguments.by,
        )
        sessions.append(session)
        for note in notes:
            print(note, file=sys.stderr)
        count, file = len(session.pictures), printable(str(session.decisions.path))
        print(f"{count} pictures, {session.done.sum()} decided; decisions go to {file}")
        return app.build(session, arguments.model.resolve().name, arguments.host)

    try:
        serve_page(arguments, build)
    finally:
        for session in sessions:
            session.close()
