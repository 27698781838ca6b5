"""The PyTorch peer of single training steps and of features, on a CPU.

    TORCH/bin/python scripts/benchmarks/torch_steps.py train-reference --seconds 8
    TORCH/bin/python scripts/benchmarks/torch_steps.py features-resnet50 --size 224 --seconds 8
    TORCH/bin/python scripts/benchmarks/torch_steps.py train-resnet50 --size 128 --seconds 10

TORCH is a separate environment without jaxgear: `pip install torch==2.13.0 numpy pillow`. The
speed of a shared machine drifts, so let `python -m scripts.bench TASK --pairs 5 --peer '...'` run
this in turn with jaxgear.

Each task does the work of the task of that name in scripts/bench.py. It tries both memory layouts
and reports the faster one. The last line is JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch_networks import ReferenceCNN, resnet50_features

CLASSES = 12
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
Step = Callable[[], None]


def fastest(prepare: Callable[[torch.memory_format], Step], batch: int, seconds: float) -> dict:
    """Images a second in the faster layout: the batch over the median time of a step."""
    rates = {}
    for name, layout in LAYOUTS.items():
        step = prepare(layout)
        for _ in range(2):
            step()
        times, stop = [], time.perf_counter() + seconds / len(LAYOUTS)
        while time.perf_counter() < stop or len(times) < 3:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        rates[name] = batch / statistics.median(times)
    best = max(rates, key=rates.get)
    return {"images_per_second": round(rates[best], 2), "layout": best, "batch": batch}


def train_reference(args: argparse.Namespace) -> dict:
    """One Adam step of the reference CNN on 128 px images; batch 50 by default."""
    batch = args.batch or 50

    def prepare(layout: torch.memory_format) -> Step:
        model = ReferenceCNN(CLASSES).to(memory_format=layout)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        images = torch.randint(0, 256, (batch, 3, 128, 128), dtype=torch.uint8)
        images = images.contiguous(memory_format=layout)
        labels = torch.randint(0, CLASSES, (batch,))

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model((images.float() / 255 - 0.5) / 0.5), labels).backward()
            optimizer.step()

        return step

    return fastest(prepare, batch, args.seconds)


def features_resnet50(args: argparse.Namespace) -> dict:
    """Features of a frozen ResNet-50; batch 32 by default."""
    batch = args.batch or 32

    def prepare(layout: torch.memory_format) -> Step:
        model, images = _resnet50(batch, args.size, layout)
        model.eval()

        @torch.inference_mode()
        def step() -> None:
            model(images)

        return step

    return fastest(prepare, batch, args.seconds)


def train_resnet50(args: argparse.Namespace) -> dict:
    """Forward and backward pass of a ResNet-50, without an optimizer; batch 16 by default."""
    batch = args.batch or 16

    def prepare(layout: torch.memory_format) -> Step:
        model, images = _resnet50(batch, args.size, layout)

        def step() -> None:
            model.zero_grad()
            model(images).square().mean().backward()

        return step

    return fastest(prepare, batch, args.seconds)


def _resnet50(batch: int, size: int, layout: torch.memory_format) -> tuple[nn.Module, torch.Tensor]:
    """The network and images [B, 3, S, S]."""
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout)
    return resnet50_features().to(memory_format=layout), images


TASKS = {
    "train-reference": train_reference,
    "features-resnet50": features_resnet50,
    "train-resnet50": train_resnet50,
}


def main() -> None:
    """Prints the figures of a task as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--size", type=int, default=128, help="of images, in pixels")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--seconds", type=float, default=20, help="duration of the measurement")
    args = parser.parse_args()
    figures = TASKS[args.task](args)
    print(json.dumps({"peer": f"torch {torch.__version__}", "task": args.task} | figures))


if __name__ == "__main__":
    main()
