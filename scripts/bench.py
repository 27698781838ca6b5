"""Times jaxgear, in turn with a peer where one is named.

    python -m scripts.bench features-resnet50 --size 128 --seconds 20
    python -m scripts.bench reach --data FOLDER --accuracy 0.90
    python -m scripts.bench train-reference --seconds 8 --pairs 5 \\
        --peer 'TORCH/bin/python scripts/benchmarks/torch_steps.py train-reference --seconds 8'

Peers are scripts/benchmarks/torch_*.py; they say what TORCH is. Tasks, each the same work as that
of its name in scripts/benchmarks/torch_steps.py, or in the file that is named:

    features-resnet50   features of a frozen ResNet-50, uint8 pictures in, batch 32
    train-resnet50      forward and backward pass of ResNet-50, batch 16
    train-reference     one optimizer step of a small CNN as others use on these pictures, batch 50
    train-scratch       whole epochs of the network of experiments/scratch.py, batch 48: what a GPU
                        does; its peer, and that of the next and of reach, is torch_train.py
    finetune-resnet50   whole epochs of a ResNet-50 with a head, all of it trained, batch 64
    predict             `jaxgear predict RUN` as a whole process, decoding included; its peer is
                        torch_predict.py
    reach               wall seconds from the first command to a test accuracy, everything included:
                        imports, checking and splitting the pictures with an empty cache,
                        compilation, training, the test
    start               seconds from the command of experiments/scratch.py to its first training
                        step, with empty caches and then with filled ones
    input               pictures of --data checked and letterboxed at --size, with an empty cache
                        (their files may be in the system's) and then from the cache
    epoch               whole epochs of experiments/scratch.py on --data (default: drawn), without
                        and with --backgrounds in turn, and how many times longer those take

With `--peer` the two run in turn (A B A B ...), since the speed of a shared machine drifts; the
ratio is that of the medians. The last line is JSON, as the peer's must be.
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
from jaxgear.machine.xla_flags import set_xla_flags
from scripts.benchmarks.commands import predict, reach, start
from scripts.benchmarks.epochs import epoch
from scripts.benchmarks.networks import features_resnet50, train_reference, train_resnet50
from scripts.benchmarks.reading import read_pictures
from scripts.benchmarks.training import finetune_resnet50, train_scratch

# Task -> its function, and the figure that is compared.
TASKS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], str]] = {
    "features-resnet50": (features_resnet50, "images_per_second"),
    "train-resnet50": (train_resnet50, "images_per_second"),
    "train-reference": (train_reference, "images_per_second"),
    "train-scratch": (train_scratch, "images_per_second"),
    "finetune-resnet50": (finetune_resnet50, "images_per_second"),
    "predict": (predict, "images_per_second"),
    "reach": (reach, "seconds"),
    "start": (start, "seconds"),
    "input": (read_pictures, "images_per_second"),
    "epoch": (epoch, "images_per_second"),
}


def run_peer(command: str) -> dict[str, Any]:
    """The JSON of a peer's last line.

    It starts as its users start it: without the huge pages and the compiler's flags that jaxgear's
    programs ask for. Name them in the command (`env GLIBC_TUNABLES=...`) to see what it would do
    with them.
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
    parser.add_argument("--batch", type=int, help="pictures a step (default: the peer's)")
    parser.add_argument("--seconds", type=float, default=20, help="to measure for, once")
    parser.add_argument("--data", help="folder of photographs")
    parser.add_argument("--backgrounds", default="drawn", help="for epoch: PHOTOS, or drawn ones")
    parser.add_argument("--accuracy", type=float, default=0.90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="run or bundle, for predict")
    parser.add_argument("--limit", type=int, default=1000, help="pictures, for predict")
    parser.add_argument("--peer", metavar="CMD", help="a command that does the same")
    parser.add_argument("--pairs", type=int, default=1, help="how often the two run")
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
    set_xla_flags()  # as experiments/__init__.py does
    restart_with_huge_pages()
    main()
