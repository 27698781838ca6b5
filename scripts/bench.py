"""Times jaxgear as a whole process, in turn with a peer.

    python -m scripts.bench reach --data FOLDER --accuracy 0.90
    python -m scripts.bench predict --data FOLDER --run RUN
    python -m scripts.bench reach --data FOLDER --pairs 5 --peer 'python torch_peer.py reach ...'

`predict`: `jaxgear predict RUN` on pictures; its peer is scripts/benchmarks/torch_predict.py.
`reach`: wall seconds from the first command to a test accuracy, everything included: imports,
checking and splitting the pictures with an empty cache, compilation, training, the test. With
`--peer` the two run in turn (A B A B ...), since the speed of a shared machine drifts; the ratio is
of the medians. The last line is JSON; a peer's must have "seconds".
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Reaches 0.90 with a little to spare (validation 0.92 with seed 0), and in time on two cores.
SHORT = {"--epochs": "6", "--image-size": "80"}


def reach(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of the scratch experiment on a short schedule, all caches empty."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "experiments.scratch", "--out", f"{scratch}/runs"]
        command += ["--data", arguments.data, "--seed", str(arguments.seed)]
        command += [word for flag in SHORT.items() for word in flag]
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=sys.stderr,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"JAXGEAR_CACHE": f"{scratch}/cache"},
        )
        seconds = time.perf_counter() - start
        (run,) = Path(scratch, "runs").iterdir()
        accuracy = json.loads((run / "test.json").read_text())["accuracy"]
    if accuracy < arguments.accuracy:
        print(f"warning: test accuracy {accuracy:.4f} is short of the goal", file=sys.stderr)
    return {"accuracy": round(accuracy, 4), "seconds": round(seconds, 1)} | {
        flag.strip("-").replace("-", "_"): int(value) for flag, value in SHORT.items()
    }


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command on `--limit` pictures with a CSV, programs compiled before; decoding included."""
    files = sorted(str(path) for path in Path(arguments.data).rglob("*") if path.is_file())
    files = files[: arguments.limit]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "jaxgear", "predict", arguments.run, *files]
        command += ["--csv", f"{scratch}/found.csv"]
        for _ in range(2):  # the first compiles, where nobody has
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
    return {
        "images": len(files),
        "images_per_s": round(len(files) / seconds),
        "seconds": round(seconds, 2),
    }


TASKS = {"reach": reach, "predict": predict}


def run_peer(command: str) -> dict[str, Any]:
    """The JSON of a peer's last line."""
    done = subprocess.run(shlex.split(command), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Runs one task, alone or in turn with a peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--accuracy", type=float, default=0.90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="run or bundle, for predict")
    parser.add_argument("--limit", type=int, default=1000, help="pictures, for predict")
    parser.add_argument("--peer", metavar="CMD", help="a command that does the same")
    parser.add_argument("--pairs", type=int, default=1, help="how often the two run")
    arguments = parser.parse_args()
    ours, peers = [], []
    for _ in range(arguments.pairs):
        ours.append(TASKS[arguments.task](arguments))
        if arguments.peer:
            peers.append(run_peer(arguments.peer))
            print(json.dumps([ours[-1], peers[-1]]), file=sys.stderr)
    seconds = statistics.median(result["seconds"] for result in ours)
    summary = {"task": arguments.task, **ours[-1], "seconds": seconds, "runs": len(ours)}
    if peers:
        theirs = statistics.median(result["seconds"] for result in peers)
        summary |= {"peer_seconds": theirs, "ratio": round(seconds / theirs, 3)}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
