"""The task `stages` of scripts/scale.py: near-duplicates in one process, and over files."""

import argparse
import hashlib
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgear.data.images.descriptor import COLUMNS, ROWS
from jaxgear.data.splits import near_duplicates
from jaxgear.data.splits.stages import compare, components, sign


def stages(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a processor and peak memory of each stage, and whether the groups are the same."""
    count, parts = arguments.count, arguments.parts
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=arguments.folder))
    places = [folder / str(part) for part in range(parts)]
    for place in places:
        place.mkdir()
    each = count // parts
    signed = [alone(_sign, place, n, parts, each) for n, place in enumerate(places)]
    compared = [alone(_compare, places, part) for part in range(1, parts + 1)]
    pairs = np.concatenate([pairs for pairs, *_ in compared])
    groups, *joined = alone(components, pairs)
    whole, *in_memory = alone(_in_memory, parts, each)
    disk = sum(path.stat().st_size for path in folder.rglob("keys-*"))
    shutil.rmtree(folder)
    same = whole == hashlib.sha256(repr(sorted(groups.items())).encode()).hexdigest()
    names = "seconds", "mib_more"
    return {
        "images": count,
        "parts": parts,
        "in_one_process": dict(zip(names, in_memory, strict=True)),
        "sign": [dict(zip(names, own, strict=True)) for _, *own in signed],
        "compare": [dict(zip(names, own, strict=True)) for _, *own in compared],
        "components": dict(zip(names, joined, strict=True)),
        "bytes_of_keys_an_image": round(disk / count),
        "with_near_duplicates": len(groups),
        "same_groups": same,
    }


def made(part: int, count: int) -> dict[str, bytes]:
    """Descriptors, of which every tenth is a near-duplicate of the one before it."""
    rng = np.random.default_rng(part)
    views = rng.integers(0, 256, (count, 2 * ROWS * COLUMNS), np.uint8)
    views[rng.random(views.shape, np.float32) < 0.85] = 255  # white, as most of a catalogue image
    views[1::10] = views[:-1:10]
    views[1::10, 5:7] ^= 64
    head = np.array([100, 100], "<u2").tobytes()
    names = (hashlib.sha256(b"%d" % (part * count + row)).hexdigest() for row in range(count))
    return {name: head + row.tobytes() for name, row in zip(names, views, strict=True)}


def _sign(place: Path, part: int, parts: int, count: int) -> Callable[[], None]:
    descriptors = made(part, count)
    return lambda: sign(place, parts, descriptors)


def _compare(places: list[Path], part: int) -> Callable[[], np.ndarray]:
    return lambda: compare(places, part)


def _in_memory(parts: int, count: int) -> Callable[[], str]:
    descriptors: dict[str, bytes] = {}
    for part in range(parts):
        descriptors |= made(part, count)
    return lambda: _digest(dict(sorted(descriptors.items())))


def _digest(descriptors: dict[str, bytes]) -> str:
    names, number = list(descriptors), near_duplicates.groups(list(descriptors.values()))
    _, first, of, sizes = np.unique(number, True, True, True)
    several = np.flatnonzero(sizes[of] > 1).tolist()
    groups = {names[row]: names[first[of[row]]] for row in several}
    return hashlib.sha256(repr(sorted(groups.items())).encode()).hexdigest()


def alone(make: Callable, *given: Any) -> tuple[Any, float, float]:
    """Calls the function that `make(*given)` returns, in a new process.

    Returns its result, its seconds of a processor, and the memory (MiB) that it takes beside its
    input.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (make, given))


def _measured(make: Callable, given: tuple) -> tuple[Any, float, float]:
    work = make(*given) if make is not components else lambda: components(*given)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of making the input
    before, start = _kibibytes("VmRSS"), time.process_time()
    result = work()
    seconds = round(time.process_time() - start, 1)
    return result, seconds, round((_kibibytes("VmHWM") - before) / 1024)


def _kibibytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1])
