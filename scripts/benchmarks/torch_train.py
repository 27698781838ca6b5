"""The PyTorch peer of the tasks of training.py, and of `reach`.

    TORCH/bin/python scripts/benchmarks/torch_train.py train-scratch --batch 48
    TORCH/bin/python scripts/benchmarks/torch_train.py finetune-resnet50 --size 224
    TORCH/bin/python scripts/benchmarks/torch_train.py reach --data FOLDER --accuracy 0.90

TORCH is a separate environment without jaxgear: `pip install torch==2.13.0 numpy pillow`, and
torchvision for its ResNet-50.

On a GPU it uses bfloat16 by autocast, channels last, fused AdamW, cuDNN's search for the fastest
convolution, and keeps pictures and their order on the device. It tries eager mode (`eager`),
`torch.compile` (`compile`), and `torch.compile(mode="reduce-overhead")` (`graphs`), which replays
CUDA graphs, and reports the fastest. The last line is JSON.

`reach` trains the CNN of published solutions with their recipe (Adam 1e-3, 50 pictures a step, 70 %
of the pictures), eagerly, and on a CPU with images as NCHW. The CPU figures in results/README.md
are of `--processes 1`, and of a clock that started after the imports.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402
from torch_networks import ReferenceCNN, scratch  # noqa: E402

CLASSES = 12
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WAYS = {"eager": None, "compile": "default", "graphs": "reduce-overhead"}


def resnet50(size: int) -> nn.Module:
    """torchvision's ResNet-50 with a head of `CLASSES`."""
    from torchvision.models import resnet50

    return resnet50(num_classes=CLASSES)


def train(network: Callable[[int], nn.Module], batch: int, args: argparse.Namespace) -> dict:
    """Pictures a second of the fastest way, and of each way."""
    rates = {}
    for way in args.ways.split(","):
        torch.compiler.reset()
        torch.manual_seed(0)
        start = time.perf_counter()
        epoch = epochs(network(args.size), batch, args.size, WAYS[way])
        epoch()
        compiled = time.perf_counter() - start
        epoch()
        times, stop = [], time.perf_counter() + args.seconds
        while time.perf_counter() < stop or len(times) < 3:
            start = time.perf_counter()
            count = epoch()
            times.append(time.perf_counter() - start)
        rates[way] = round(count / statistics.median(times), 1)
        rates[f"{way}_first_epoch_seconds"] = round(compiled, 1)
    best = max(args.ways.split(","), key=rates.get)
    return {"images_per_second": rates[best], "way": best, "batch": batch, **rates}


def epochs(model: nn.Module, batch: int, size: int, mode: str | None) -> Callable[[], int]:
    """A function that trains one epoch and returns its number of pictures."""
    count = batch * (64 if DEVICE.type == "cuda" else 8)
    model = model.to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=DEVICE.type == "cuda")
    # Channels last in memory, [N, 3, S, S] by shape.
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, device=DEVICE)
    images = images.permute(0, 3, 1, 2)
    labels = torch.randint(0, CLASSES, (count,), device=DEVICE)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            logits = model((x.float() - 204) / 76.5).float()
        right = (logits.detach().argmax(1) == y).sum()
        return F.cross_entropy(logits, y, label_smoothing=0.1), right

    if mode:
        loss_of = torch.compile(loss_of, mode=mode)

    def epoch() -> int:
        model.train()
        total = torch.zeros(2, device=DEVICE)
        for index in torch.randperm(count, device=DEVICE).split(batch):
            optimizer.zero_grad()
            loss, right = loss_of(images[index], labels[index])
            loss.backward()
            optimizer.step()
            total += torch.stack([loss.detach() * len(index), right])
        model.eval()
        with torch.inference_mode():
            loss_of(images[:batch], labels[:batch])
        total.tolist()  # waits for the device
        return count

    return epoch


def reach(args: argparse.Namespace) -> dict:
    """Seconds from the first import to the accuracy, decoding included."""
    folder = Path(args.data)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [path for name in classes for path in sorted((folder / name).iterdir())]
    with multiprocessing.Pool(args.processes) as pool:
        images = np.stack(pool.map(read, files, chunksize=16))
    in_test = [int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % 10 < 3 for path in files]
    test = torch.tensor(in_test, device=DEVICE)
    labels = torch.tensor([classes.index(path.parent.name) for path in files], device=DEVICE)
    images = torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2)
    gpu = DEVICE.type == "cuda"
    layout = torch.channels_last if gpu else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    torch.manual_seed(args.seed)
    model = ReferenceCNN(len(classes)).to(DEVICE, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    forward = lambda index: model(images[index].float() / 127.5 - 1)  # noqa: E731
    train_rows, test_rows = (torch.nonzero(split)[:, 0] for split in (~test, test))
    accuracy, epoch = 0.0, 0
    while accuracy < args.accuracy and epoch < args.epochs:
        epoch += 1
        model.train()
        for part in torch.randperm(len(train_rows), device=DEVICE).split(50):
            optimizer.zero_grad()
            index = train_rows[part]
            F.cross_entropy(forward(index), labels[index]).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            predicted = torch.cat([forward(part).argmax(1) for part in test_rows.split(100)])
        accuracy = (predicted == labels[test_rows]).float().mean().item()
    seconds = round(time.perf_counter() - START, 1)
    return {"accuracy": round(accuracy, 4), "epochs": epoch, "seconds": seconds}


def read(path: Path, size: int = 128) -> np.ndarray:
    """Reads a picture, letterboxed on white: [size, size, 3]."""
    picture = Image.open(path).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, (255,) * 4)
    canvas.alpha_composite(picture)
    picture = canvas.convert("RGB")
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), (255,) * 3)
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return np.asarray(square)


def main() -> None:
    """Prints the figures of a task as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["train-scratch", "finetune-resnet50", "reach"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--ways", default="eager,compile,graphs", help="which ways to try")
    parser.add_argument("--data")
    parser.add_argument("--accuracy", type=float, default=0.90)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processes", type=int, help="for reach: processes that decode (default: all cores)"
    )
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    if args.task == "reach":
        figures = reach(args)
    elif args.task == "train-scratch":
        figures = train(lambda size: scratch(CLASSES, size), args.batch or 48, args)
    else:
        figures = train(resnet50, args.batch or 64, args)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    print(
        json.dumps(
            {"peer": f"torch {torch.__version__}", "device": device, "task": args.task} | figures
        )
    )


if __name__ == "__main__":
    main()
