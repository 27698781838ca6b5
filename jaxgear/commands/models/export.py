"""Export a trained model as StableHLO, which jax runs without jaxgear."""

import argparse
from pathlib import Path

from jaxgear.errors import UsageError
from jaxgear.files import to_json
from jaxgear.outputs import is_special, outputs

# Ending of a file -> the format that people expect in it.
OTHERS = {
    ".onnx": "ONNX",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".h5": "Keras",
    ".keras": "Keras",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".safetensors": "weights (those are in RUN/model)",
    ".json": "JSON (that is the card)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear export`."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_BUNDLE", help="run folder, or bundle")
    parser.add_argument(
        "file",
        type=Path,
        help="where to write it, as something.stablehlo; a card is written to FILE.json (not for a "
        "device, a pipe or -, which is stdout)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the program, and a card that describes its input and output."""
    from jaxgear.bundle import Bundle
    from jaxgear.prediction import export

    file = arguments.file
    if other := OTHERS.get(file.suffix.lower()):
        raise UsageError(f"FILE {file}: the export is StableHLO, not {other}; name it .stablehlo")
    card = None if is_special(file) else file.with_name(file.name + ".json")
    with outputs({"FILE": file, "FILE.json": card}) as files:
        bundle = Bundle.load(arguments.model)
        artefact = bytes(export.export(bundle))
        files["FILE"].write(artefact)
        if card is not None:
            files["FILE.json"].write(to_json(export.card(bundle, artefact, file.name)))
        size = f"{len(artefact) / 1e6:.1f} MB for {', '.join(export.PLATFORMS)}"
        print(f"{file}\t{size}; " + (f"card {card}" if card else "no card"))
