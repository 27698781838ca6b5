"""Measures how the data pipeline scales, on drawn pictures.

    python -m scripts.scale draw DRAWN --count 10000 --side 256
    python -m scripts.scale prepare DRAWN --size 128 --rounds 3
    python -m scripts.scale open OUT --size 128

draw      writes the drawn set on all cores (data/synthetic/drawn.py), about 200 pictures a second
          and core at 160 pixels; skips pictures that exist
prepare   seconds of `jaxgear prepare --size S` (starting processes, hashes, groups and shards, but
          not the imports of this process) and its resident memory. In turn (A B C A B C ...), as
          many processes decode and resize the same files with Pillow alone, and with Pillow that
          also encodes the stored PNG. `--size 0` stores the files as they are, while Pillow
          resizes to 128. `--keep OUT` keeps the set.
train     pictures a second of training experiments/scratch.py's network on a prepared set, streamed
          and in memory in turn, in one process, for `--seconds`; with `--backgrounds`, pasted
memory    peak resident memory of a process that trains on a streamed set, and of one that trains on
          240 pictures in memory; both with `--backgrounds`, if given
grow      prepare, open and train on the first 1,000 to 100,000 pictures of DRAWN: --csv and --plot
ray       seconds of `jaxgear prepare` in 1 and 2 processes, and on 1 and 2 nodes of a Ray cluster
group     seconds to group `--count` made descriptors, and as many of which a fifth are the same;
          DRAWN is not read
windows   where a batch is read of a prepared set: shuffled as a whole, and within windows of
          `--window` pictures on 1 and on `--hosts` hosts
stages    seconds and memory to group `--count` made descriptors in one process, and in the stages
          of `--parts` parts, one job after the other, each in a process of its own
join      seconds and memory of `jaxgear prepare --join`, after `--count` tiny images were drawn in
          DRAWN and prepared in `--parts` parts
tables    writes the set OUT of `--count` pictures that are all one image, with the tables that
          `prepare` writes; one in ten is a near-duplicate of another, one in a hundred its copy
open      seconds and memory until a prepared set is open, grouped and split; with `--host K` on
          host K of `--hosts`
record    seconds and memory to write `splits.json` of a prepared set, to read it, and to compare it
          with the set as a resumed run does

Figures are medians over the rounds. The last line is JSON (on stderr if `--csv -` takes stdout).
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from jaxgear.cli import exit_with
from jaxgear.outputs import outputs
from jaxgear.paths import path_argument
from scripts.benchmarks import joining, scaling, spreading, stages, streaming, tables, windows

_TASK = 64  # pictures that a process gets at a time


def draw(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes pictures 0 to `count` - 1 of the drawn set with seed 0."""
    from jaxgear.data.synthetic import CLASSES

    for name in CLASSES:
        (arguments.folder / name).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    work = partial(_draw, folder=arguments.folder, side=arguments.side)
    _on_processes(work, range(arguments.count), arguments.workers)
    return {"pictures": arguments.count, "seconds": round(time.perf_counter() - start, 2)}


def _draw(indices: Sequence[int], folder: Path, side: int) -> None:
    import numpy as np

    from jaxgear.data.synthetic import drawn

    for index in indices:
        name = drawn.CLASSES[index % len(drawn.CLASSES)]
        path = folder / name / f"{index:07d}"
        if path.with_suffix(".jpg").exists() or path.with_suffix(".png").exists():
            continue
        picture = drawn.draw(name, np.random.default_rng([0, index]), side)
        if picture.mode == "RGBA":
            picture.save(path.with_suffix(".png"), compress_level=1)
        else:
            picture.save(path.with_suffix(".jpg"), quality=90)


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times `jaxgear prepare` and Pillow in turn."""
    from jaxgear.data.prepare.prepared import prepare

    paths = sorted(path for path in arguments.folder.glob("*/*") if path.name[0] != ".")
    out = arguments.keep or Path(tempfile.mkdtemp(prefix="scale-"))
    times: dict[str, list[float]] = {"ours": [], "pillow": [], "pillow_png": []}
    pixels = arguments.size or 128
    for file in paths:  # so that none of them has to wait for the disk
        file.read_bytes()
    for _ in range(arguments.rounds):
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        size, workers = arguments.size or None, arguments.workers
        path = prepare(arguments.folder, out, size=size, workers=workers)
        times["ours"].append(time.perf_counter() - start)
        for name, save in (("pillow", False), ("pillow_png", True)):
            start = time.perf_counter()
            _on_processes(partial(_pillow_alone, size=pixels, save=save), paths, workers)
            times[name].append(time.perf_counter() - start)
        print(json.dumps({name: round(own[-1], 2) for name, own in times.items()}), flush=True)
    stored = sum(file.stat().st_size for file in path.iterdir())
    if not arguments.keep:
        shutil.rmtree(out)
    seconds = {name: statistics.median(own) for name, own in times.items()}
    return {
        "pictures": len(paths),
        "size": arguments.size,
        "workers": arguments.workers,
        "seconds": round(seconds["ours"], 2),
        "pictures_per_second": round(len(paths) / seconds["ours"], 1),
        "pillow_pictures_per_second": round(len(paths) / seconds["pillow"], 1),
        "ratio": round(seconds["pillow"] / seconds["ours"], 3),
        "ratio_to_pillow_with_png": round(seconds["pillow_png"] / seconds["ours"], 3),
        "set_mib": round(stored / 2**20, 1),
        "main_mib": _peak_mib(resource.RUSAGE_SELF),
        "largest_worker_mib_at_most": _peak_mib(resource.RUSAGE_CHILDREN),
    }


def _pillow_alone(paths: Sequence[Path], size: int, save: bool = False) -> None:
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            scale = size / max(image.size)
            wanted = tuple(max(1, round(side * scale)) for side in image.size)
            small = image.convert("RGB").resize(wanted, Image.Resampling.BICUBIC)
            if save:
                small.save(io.BytesIO(), "PNG", compress_level=1)


def open_prepared(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of `open_dataset`, after its imports."""
    import jaxgear.data.tfds.read  # noqa: F401
    from jaxgear.data.dataset import open_dataset

    share = (0, 1) if arguments.host is None else (arguments.host, arguments.hosts)
    options = {"size": arguments.size, "seed": 0, "share": share}
    before, start = _peak_mib(resource.RUSAGE_SELF), time.perf_counter()
    begin = time.process_time()
    dataset = open_dataset(f"tfds:gear@{arguments.folder}", **options)
    return {
        "pictures": len(dataset.groups),
        "seconds": round(time.perf_counter() - start, 4),
        "processor_seconds": round(time.process_time() - begin, 4),
        "mib": round(_peak_mib(resource.RUSAGE_SELF) - before, 1),
    }


def record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of what a run does with `splits.json`."""
    from jaxgear.data.dataset import open_dataset
    from jaxgear.data.recorded import Recorded, changed_pictures, without_trained, write_splits

    dataset = open_dataset(f"tfds:gear@{arguments.folder}", size=1, seed=0, say=lambda line: None)
    before, seconds = _peak_mib(resource.RUSAGE_SELF), {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        run = Path(scratch)
        start = time.perf_counter()
        write_splits(run, dataset)
        seconds["write"] = time.perf_counter() - start
        found = Recorded.read(run)
        seconds["read"] = time.perf_counter() - start - seconds["write"]
        assert not changed_pictures(found, dataset)
        assert without_trained(found, dataset).counts() == dataset.counts()
        seconds["resume"] = time.perf_counter() - start - sum(seconds.values())
        own = [path for path in run.rglob("*") if path.is_file() and path.stat().st_nlink == 1]
        written = sum(path.stat().st_size for path in own)
    return {
        "pictures": len(dataset.groups),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "mib": round(_peak_mib(resource.RUSAGE_SELF) - before, 1),
        "bytes_written": written,
    }


def _on_processes(work: Callable[[Sequence], None], items: Sequence, workers: int) -> None:
    """Runs `work` on all items, on `workers` new processes."""
    parts = [items[start : start + _TASK] for start in range(0, len(items), _TASK)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(work, parts):
            pass


def _peak_mib(whose: int) -> float:
    """Peak resident memory of this process or of its largest child."""
    return round(resource.getrusage(whose).ru_maxrss / 1024, 1)


TASKS = {
    "draw": draw,
    "prepare": prepare,
    "open": open_prepared,
    "record": record,
    "tables": tables.write,
    "train": streaming.train,
    "memory": streaming.memory,
    "grow": scaling.grow,
    "ray": spreading.ray,
    "group": spreading.group,
    "windows": windows.windows,
    "stages": stages.stages,
    "join": joining.join,
}


def main() -> None:
    """Runs one task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("--count", type=int, default=2000, help="pictures to draw or to make up")
    parser.add_argument("--side", type=int, default=160, help="longest side of the drawn pictures")
    parser.add_argument(
        "--size", type=int, default=128, help="pixels to store; 0: the files as they are"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=30, help="duration of training")
    parser.add_argument("--backgrounds", default="", help="a folder of photographs, or drawn")
    parser.add_argument("--csv", type=path_argument, default=Path("results/scale.csv"))
    parser.add_argument("--plot", type=path_argument, default=Path("results/scale.png"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=16_000, help="as --shuffle-window")
    parser.add_argument("--batch-size", type=int, default=256, help="of all hosts")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--host", type=int, help="number of the host, from 0")
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--keep", type=path_argument, metavar="OUT", help="keep the set there")
    arguments = parser.parse_args()
    written = {"--csv": arguments.csv, "--plot": arguments.plot}
    with outputs(written if arguments.task == "grow" else {}) as arguments.files:
        print(json.dumps({"task": arguments.task, **TASKS[arguments.task](arguments)}))


if __name__ == "__main__":
    exit_with(main)
