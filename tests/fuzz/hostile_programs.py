"""Reads damaged programs in processes that may die.

    python hostile_programs.py BUNDLE WHERE SEED COUNT

Damages the programs of BUNDLE. WHERE is header, bytecode, or use: damage anywhere, then run the
program if it can be loaded. Prints JSON: how many programs were read and refused, and the number
and outcome of each other one. The damage depends only on SEED and the number.
"""

import faulthandler
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import jaxlib.mlir.dialects.stablehlo  # noqa: F401 - loaded once, before the processes are made
import numpy as np
from mutation import EXTREMES

from jaxgear.bundle import Bundle
from jaxgear.bundle.reading import MAPS, NETWORK
from jaxgear.errors import CheckpointError
from jaxgear.evaluation.explain import heat_maps
from jaxgear.prediction.predictor import Predictor
from jaxgear.program.stablehlo import deserialize

SECONDS = 5  # of the processor, for one program; a sound one takes 0.01 s
MEBIBYTES = 512  # a sound one takes 20 MiB
BATCH = 50  # programs for each process
KINDS = ("flip", "flip", "byte", "byte", "write", "copy", "cut", "remove", "repeat")
NAMES = (NETWORK, MAPS)
MODULE = b"ML\xefR"  # where the bytecode starts


def damaged(data: bytes, where: str, rng: random.Random) -> bytes:
    """`data` after one to four changes in `where`: the header (the flatbuffer around the bytecode),
    the bytecode (mostly its first part, which has types and sizes), or both.
    """
    for _ in range(rng.randint(1, 4)):
        start, size = data.find(MODULE), len(data)
        tail = start + _module_size(data, start)
        places = {
            "header": [(0, start), (tail, size)],
            "bytecode": [(start, tail), (start, min(start + 400, tail))],
        }
        low, high = rng.choice(places.get(where) or [*places["header"], *places["bytecode"]])
        at = rng.randint(low, max(low, high))
        kind = rng.choice(KINDS)
        if kind == "cut" and where != "header":
            data = data[: rng.randint(size // 2, size)]
        elif kind == "remove":
            data = data[:at] + data[at + rng.choice([1, 2, 4, 64]) :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 8] * rng.randint(2, 9) + data[at + 8 :]
        else:
            new = rng.choice(EXTREMES)
            if kind == "flip":
                new = bytes(b ^ (1 << rng.randrange(8)) for b in data[at : at + 1])
            elif kind == "byte":
                new = bytes([rng.randrange(256)])
            elif kind == "copy":
                other = rng.randrange(size + 1)
                new = data[other : other + rng.choice([1, 2, 4, 8, 64])]
            data = data[:at] + new + data[at + len(new) :]
        if MODULE not in data:
            break
    return data


def _module_size(data: bytes, start: int) -> int:
    """The size of the bytecode by the flatbuffer, within the data."""
    return min(int.from_bytes(data[start - 4 : start], "little"), len(data) - start)


def _serve(bundle: Path, where: str, seed: int, numbers: range, out: int) -> None:
    """Reads programs and writes a line for each; a program may kill this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    originals = {name: (bundle / name).read_bytes() for name in NAMES}
    before = _most_memory()
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # kills
        rng = random.Random(f"{where} {seed} {number}")
        name = rng.choice(NAMES)
        data = damaged(originals[name], where, rng)
        try:
            if where == "use":
                _use(bundle, name, data, originals[name])
            else:
                deserialize(data)
            outcome = "read"
        except CheckpointError:
            outcome = "refused"
        except BaseException:
            outcome = "Traceback: " + traceback.format_exc()[-300:]
        grown = _most_memory() - before
        if grown > MEBIBYTES:
            outcome = f"{grown:.0f} MiB"
        os.write(out, (json.dumps([number, outcome]) + "\n").encode())
        if grown > MEBIBYTES:
            return


def _use(bundle: Path, name: str, data: bytes, original: bytes) -> None:
    """Loads the bundle with these bytes and their hash, and runs that program on an image."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(bundle, temporary, dirs_exist_ok=True))
        (folder / name).write_bytes(data)
        card = json.loads((folder / "bundle.json").read_text())
        card["sha256"][name] = hashlib.sha256(data).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(card))
        loaded = Bundle.load(folder)
    images = np.zeros((1, loaded.size, loaded.size, 3), np.uint8)
    if name == MAPS:
        heat_maps(loaded, images, batch_size=1)
    else:
        Predictor(loaded, 1).logits(images)


def _most_memory() -> float:
    """Peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(bundle: Path, where: str, seed: int, count: int) -> dict:
    """Counts of outcomes, and [number, outcome] of programs neither read nor refused."""
    counts, odd, number = Counter(), [], 0
    while number < count:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(ours)
            _serve(bundle, where, seed, range(number, min(count, number + BATCH)), theirs)
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as lines:
            for line in lines:
                last, outcome = json.loads(line)
                number = last + 1
                if outcome in ("read", "refused"):
                    counts[outcome] += 1
                else:
                    odd.append([last, outcome])
        _, status = os.waitpid(child, 0)
        if status:
            odd.append([number, signal.strsignal(-os.waitstatus_to_exitcode(status))])
            number += 1
    return dict(counts) | {"odd": odd}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
