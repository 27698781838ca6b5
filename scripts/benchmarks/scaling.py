"""The task `grow` of scripts/scale.py: the cost of a picture as a set grows."""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks import streaming

COUNTS = (1000, 3000, 10_000, 30_000, 100_000)
PHASES = {
    "prepare": "images prepared, on all cores",
    "open": "images of a prepared set, opened",
    "train": "images of a prepared set, streamed in training",
}


def grow(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of each phase for the first 1,000 to 100,000 pictures of a drawn folder.

    Writes them to `--csv` and draws them to `--plot`, which are open in `arguments.files`. Each
    phase runs in its own process.
    """
    rows = []
    every = sorted(arguments.folder.glob("*/*"), key=lambda path: path.stem)
    for count in [count for count in COUNTS if count <= len(every)]:
        with tempfile.TemporaryDirectory(dir=arguments.folder.parent) as scratch:
            for path in every[:count]:
                link = Path(scratch, "drawn", path.parent.name, path.name)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link)
            words = [Path(scratch, "drawn"), Path(scratch, "set"), "--size", arguments.size]
            costs = {"prepare": _run("jaxgear", "prepare", *words)}
            words = [Path(scratch, "set"), "--size", arguments.size]
            costs["open"] = _run("scripts.scale", "open", *words)
            options = {"size": arguments.size, "backgrounds": arguments.backgrounds}
            trained = streaming.memory(argparse.Namespace(folder=words[0], **options))
            costs["train"] = {
                # The cost of a picture in a step, times the pictures of an epoch.
                "seconds": count / trained["stream_images_per_second"],
                "mib": trained["stream_mib"],
            }
        for phase, cost in costs.items():
            seconds, mib = cost["seconds"], cost["mib"]
            rows.append({"phase": phase, "pictures": count, "seconds": seconds, "mib": mib})
            print(json.dumps(rows[-1]), flush=True)
    arguments.files["--csv"].write(to_csv(rows))
    arguments.files["--plot"].write(draw(rows))
    return {"rows": len(rows)}


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(
        row | {"seconds": round(row["seconds"], 2), "mib": round(row["mib"])} for row in rows
    )
    return text.getvalue()


def _run(module: str, *words: Any) -> dict[str, float]:
    """The JSON that a command prints last, or else its seconds and largest process in MiB."""
    start = time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    last = printed.splitlines()[-1]
    if last.startswith("{"):
        return json.loads(last)
    return {"seconds": time.perf_counter() - start, "mib": usage.ru_maxrss / 1024}


def draw(rows: list[dict[str, Any]]) -> bytes:
    """A PNG with a panel for each phase: time a picture, the fit of the whole time, and memory."""
    from jaxgear.evaluation.plots import figures as plots
    from scripts.benchmarks import plot_growth

    panels = []
    for phase, name in PHASES.items():
        own = [row for row in rows if row["phase"] == phase]
        n = np.array([row["pictures"] for row in own], float)
        times = np.array([row["seconds"] for row in own])
        b, a = np.polyfit(n, times, 1, w=1 / times)
        panels.append(
            plot_growth.Panel(
                name=name,
                values=[row["pictures"] for row in own],
                measured=list(1000 * times / n),
                fitted=list(1000 * (a + b * n) / n),
                fit=f"{a:.2g} s + {1000 * b:.3g} ms/image",
                memory=[row["mib"] / 1000 for row in own],
                logarithmic=True,
            )
        )
    return plots.png(plot_growth.growth(panels))
