"""The environment of a run: versions, device, commit and command line."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from jaxgear.data.sampling import BY_INDEX, LANES

PACKAGES = ("jaxgear", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Versions, devices, commit and command line, for `environment.json`."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "commit": _commit(),
        "order_by_index_above": BY_INDEX,  # images; `data/sampling.py`
        "shards_at_a_time": LANES,
        "argv": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+` if files differ from it.

    None if git does not track this file: an installed package may lie in a virtual environment
    inside another project's checkout.
    """
    file = Path(__file__).resolve()
    tracked = _git(file.parent, "ls-files", "--error-unmatch", file.name)
    head = _git(file.parent, "rev-parse", "HEAD")
    if tracked is None or head is None:
        return None
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Git's output for a folder, whatever repository the environment names; None on failure."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()
