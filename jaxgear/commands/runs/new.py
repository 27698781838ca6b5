"""Write an experiment file to start from."""

import argparse
import importlib.util
import keyword
import re
from pathlib import Path

import jaxgear
from jaxgear.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear new`."""
    parser.add_argument(
        "name", metavar="NAME", help="NAME.py is written here; its run folders are NAME-<time>"
    )
    parser.add_argument(
        "--like",
        choices=("scratch", "transfer"),
        default="scratch",
        help="the experiment to start from: a network from scratch, or a classifier on a "
        "pretrained ResNet (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the source of a shipped experiment to NAME.py, so that it works alone."""
    name = arguments.name.removesuffix(".py")
    path = Path(f"{name}.py")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"{arguments.name}: not a name for a Python file; use letters and _")
    if path.exists():
        raise UsageError(f"{path}: exists already; choose another name")
    if importlib.util.find_spec(name):
        raise UsageError(f"{name}: {path} would hide the module {name}; choose another name")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_alone(arguments.like, name))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    print(f"{path}: change its `recipe`, and train with `python {path}`")


def _alone(experiment: str, name: str) -> str:
    """The source of a shipped experiment, changed to work as `name`.py."""
    package = Path(jaxgear.__file__).parent
    # An installed package has the experiments of the clone within it (setup.py).
    folders = (package / "experiments", package.parent / "experiments")
    folder = next(folder for folder in folders if (folder / f"{experiment}.py").is_file())
    source = (folder / f"{experiment}.py").read_text(encoding="utf-8")
    source = source.replace(f"python -m experiments.{experiment}", f"python {name}.py")
    source = source.replace("from . import", "from jaxgear.experiments import")
    return re.sub(r"experiments/(\w+)\.py", r"jaxgear.experiments.\1", source)
