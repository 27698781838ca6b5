"""Tasks of scripts/bench.py that time a whole command, from its start to its end."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Enough for 0.90 (validation accuracy 0.935 on average over seeds 0 to 3).
SHORT = {"--epochs": "12", "--image-size": "64", "--width": "0.5", "--warmup": "0.05"}
ROOT = Path(__file__).parents[2]


def as_typed(cache: str) -> dict[str, str]:
    """The environment of a command that a user types, with its own cache folder."""
    ours = {"GLIBC_TUNABLES", "JAX_COMPILATION_CACHE_DIR"}
    theirs = {name: value for name, value in os.environ.items() if name not in ours}
    return theirs | {"JAXGEAR_CACHE": cache}


def reach(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times one run of experiments/scratch.py on a short schedule, all caches empty."""
    if not arguments.data:
        raise SystemExit("reach: --data FOLDER is needed")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "experiments.scratch", "--out", f"{scratch}/runs"]
        command += ["--data", arguments.data, "--seed", str(arguments.seed)]
        command += [word for flag in SHORT.items() for word in flag]
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=sys.stderr,
            cwd=ROOT,
            env=as_typed(f"{scratch}/cache"),
        )
        seconds = time.perf_counter() - start
        (run,) = Path(scratch, "runs").iterdir()
        accuracy = json.loads((run / "test.json").read_text())["accuracy"]
    if accuracy < arguments.accuracy:
        print(f"warning: test accuracy {accuracy:.4f} is short of the goal", file=sys.stderr)
    return {"accuracy": round(accuracy, 4), "seconds": round(seconds, 1)} | {
        flag.strip("-").replace("-", "_"): json.loads(value) for flag, value in SHORT.items()
    }


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command to the first training step, with empty and then filled caches."""
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "experiments.scratch", "--out", f"{scratch}/runs"]
        command += ["--epochs", "1", "--data", arguments.data or ""]
        for name in ("cold_seconds", "seconds"):
            begin = time.perf_counter()
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=as_typed(f"{scratch}/cache"),
            ) as process:
                # The last line before the first step.
                while not (line := process.stdout.readline()).startswith("compiled the evalua"):
                    if not line:
                        raise SystemExit(f"start: {' '.join(command)} ended too early")
                seconds[name] = round(time.perf_counter() - begin, 2)
                process.kill()
    return seconds


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times `jaxgear predict` with a CSV on `--limit` pictures, with its programs in the cache."""
    return _time_predict(arguments, "--csv")


def sort(arguments: argparse.Namespace) -> dict[str, Any]:
    """`predict`, with `--sort` into an empty folder in place of the CSV."""
    return _time_predict(arguments, "--sort")


def _time_predict(arguments: argparse.Namespace, output: str) -> dict[str, Any]:
    files = sorted(str(path) for path in Path(arguments.data).rglob("*") if path.is_file())
    files = files[: arguments.limit]
    # Beside the pictures: a hard link stays on its file system.
    with tempfile.TemporaryDirectory(dir=Path(arguments.data).parent) as scratch:
        for number in range(2):  # the first fills the cache of compiled programs
            command = [sys.executable, "-m", "jaxgear", "predict", arguments.run, *files]
            command += [output, f"{scratch}/{number}"]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
    return {
        "images": len(files),
        "images_per_second": round(len(files) / seconds),
        "seconds": round(seconds, 2),
    }
