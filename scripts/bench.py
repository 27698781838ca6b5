"""Times jaxgear, alone or in turn with a peer.

    python -m scripts.bench features-resnet50 --size 128 --seconds 20
    python -m scripts.bench reach --data FOLDER --accuracy 0.90
    python -m scripts.bench train-reference --seconds 8 --pairs 5 \\
        --peer 'TORCH/bin/python scripts/benchmarks/torch_steps.py train-reference --seconds 8'

Peers are scripts/benchmarks/torch_*.py, which explain TORCH. A task does the same work as the task
of that name in its peer, which is torch_steps.py unless another is named:

    features-resnet50   features of a frozen ResNet-50, uint8 pictures in, batch 32
    train-resnet50      forward and backward pass of ResNet-50, batch 16
    train-reference     one optimizer step of the CNN of published solutions, batch 50
    train-scratch       whole epochs of the network of experiments/scratch.py, batch 48, for GPUs;
                        the peer of this task, the next one and reach is torch_train.py
    finetune-resnet50   whole epochs of a ResNet-50 with a head, all layers trained, batch 64
    predict             `jaxgear predict RUN` as a whole process, decoding included; its peer is
                        torch_predict.py
    sort                the same with --sort in place of --csv; its peer is the task `predict`
    reach               seconds of a whole command that reaches a test accuracy: imports, checking
                        and splitting the pictures with an empty cache, compilation, training, test
    start               seconds from the command of experiments/scratch.py to its first training
                        step, with empty caches and then with filled ones
    input               pictures of --data checked and letterboxed at --size, with an empty cache
                        (the system may have cached the files) and then from the cache
    epoch               whole epochs of experiments/scratch.py on --data (default: drawn), without
                        and with --backgrounds in turn, and the ratio of their times
    seeds               whole epochs of experiments/scratch.py with --runs seeds as one program, and
                        with one seed, in turn, and how many times as fast the seeds are together

With `--peer` the two run in turn (A B A B ...), since the speed of a shared machine drifts; `ratio`
compares the medians. The last line is JSON, and the peer's last line must be JSON too.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from jaxgear.machine.huge_pages import restart_with_huge_pages
from jaxgear.machine.process import set_up_process
from scripts.benchmarks.commands import predict, reach, sort, start
from scripts.benchmarks.epochs import epoch
from scripts.benchmarks.networks import features_resnet50, train_reference, train_resnet50
from scripts.benchmarks.reading import read_pictures
from scripts.benchmarks.seeds import seeds
from scripts.benchmarks.training import finetune_resnet50, train_scratch

# Task -> its function, and the figure to compare.
TASKS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], str]] = {
    "features-resnet50": (features_resnet50, "images_per_second"),
    "train-resnet50": (train_resnet50, "images_per_second"),
    "train-reference": (train_reference, "images_per_second"),
    "train-scratch": (train_scratch, "images_per_second"),
    "finetune-resnet50": (finetune_resnet50, "images_per_second"),
    "predict": (predict, "images_per_second"),
    "sort": (sort, "images_per_second"),
    "reach": (reach, "seconds"),
    "start": (start, "seconds"),
    "input": (read_pictures, "images_per_second"),
    "epoch": (epoch, "images_per_second"),
    "seeds": (seeds, "images_per_second"),
}


def run_peer(command: str) -> dict[str, Any]:
    """Runs a peer, and returns the JSON of its last line.

    The peer starts as its users start it, without the huge pages and compiler flags that jaxgear
    sets. Set them in the command (`env GLIBC_TUNABLES=...`) to measure the peer with them.
    """
    own = {"GLIBC_TUNABLES", "XLA_FLAGS"}
    env = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        shlex.split(command), check=True, stdout=subprocess.PIPE, text=True, env=env
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Runs one task, alone or in turn with a peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--size", type=int, default=128, help="of pictures, in pixels")
    parser.add_argument("--batch", type=int, help="pictures a step (default: as above)")
    parser.add_argument("--seconds", type=float, default=20, help="duration of a measurement")
    parser.add_argument("--data", help="folder of photographs")
    parser.add_argument(
        "--backgrounds", default="drawn", help="for epoch: a folder of photographs, or drawn"
    )
    parser.add_argument("--accuracy", type=float, default=0.90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=4, help="for seeds: as one program")
    parser.add_argument("--run", help="run or bundle, for predict")
    parser.add_argument("--limit", type=int, default=1000, help="pictures, for predict")
    parser.add_argument("--peer", metavar="CMD", help="a command that does the same work")
    parser.add_argument("--pairs", type=int, default=1, help="how often to measure")
    arguments = parser.parse_args()
    task, figure = TASKS[arguments.task]
    ours, peers = [], []
    for _ in range(arguments.pairs):
        ours.append(task(arguments))
        if arguments.peer:
            peers.append(run_peer(arguments.peer))
            print(json.dumps([ours[-1], peers[-1]]), file=sys.stderr)
    medians = {
        name: statistics.median(result[name] for result in ours)
        for name, value in ours[-1].items()
        if name == figure or isinstance(value, float)
    }
    median = medians[figure]
    summary = {"task": arguments.task, **ours[-1], **medians, "runs": len(ours)}
    if peers:
        theirs = statistics.median(result[figure] for result in peers)
        summary |= {f"peer_{figure}": theirs, "ratio": round(median / theirs, 3)}
    print(json.dumps(summary))


if __name__ == "__main__":
    set_up_process()  # as experiments/__init__.py does
    restart_with_huge_pages()
    main()
