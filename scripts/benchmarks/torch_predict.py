"""The peer of `python -m jaxgear predict`: the same network and pictures, by PyTorch.

    TORCH/bin/python scripts/benchmarks/torch_predict.py RUN FOLDER --csv FILE

TORCH is a separate environment without jaxgear: `pip install torch==2.13.0 numpy pillow`.

Reads the weights of a run of experiments/scratch.py and works like a script around torchvision: a
DataLoader with two worker processes, Resize (bicubic), Pad, ToTensor, Normalize, batches of 64. The
last line is JSON with the seconds since the first import, and the images a second; it goes to
stderr if `--csv -` takes stdout.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from torch import nn  # noqa: E402
from torch_networks import scratch  # noqa: E402

MEAN, STD = 204.0, 76.5  # of ConvNet
STDOUT = Path("-")


class Pictures(torch.utils.data.Dataset):
    """Upright RGB on white, its longer side `size`, padded to a square, normalised: [3, S, S]."""

    def __init__(self, paths: list[Path], size: int, mean: float, std: float):
        self.paths, self.size, self.mean, self.std = paths, size, mean / 255, std / 255

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(self.paths[index])
        factor = min(8, self.reduction(image))
        image.draft(None, tuple(max(1, side // factor) for side in image.size))
        image = ImageOps.exif_transpose(image)
        if image.mode != "RGB":
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image).convert("RGB")
        scale = self.size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        factor = self.reduction(image)
        part = (0, 0, image.width / factor, image.height / factor)
        image = image.reduce(factor).resize((width, height), Image.Resampling.BICUBIC, part)
        square = Image.new("RGB", (self.size, self.size), (255, 255, 255))
        square.paste(image, ((self.size - width) // 2, (self.size - height) // 2))
        x = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous().float().div_(255)
        return x.sub_(self.mean).div_(self.std)

    def reduction(self, image: Image.Image) -> int:
        """As `reduction` in jaxgear/data/images/letterboxing.py."""
        factor = 1
        while -(-max(image.size) // (2 * factor)) >= max(self.size, 128):
            factor *= 2
        return factor


def network(card: dict, weights: dict[str, np.ndarray]) -> nn.Module:
    """The network of experiments/scratch.py, with the weights of a bundle."""
    model = scratch(len(card["classes"]), card["preprocessing"]["size"])
    head = len(model) - 1
    ours = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = {}
    for name, value in weights.items():
        *path, leaf = name.split("/")[1:]
        first = path[0].removeprefix("layers_").replace("head", str(head))
        if leaf == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        key = ".".join([first, *path[1:], ours.get(leaf, leaf)])
        state[key] = torch.from_numpy(value.copy())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return model


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads float32 arrays from a file of a length, a JSON header and the bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }


def opened(path: Path) -> contextlib.AbstractContextManager:
    """A file to write text to; `-` is stdout. jaxgear's own writers are not installed here."""
    return contextlib.nullcontext(sys.stdout) if path == STDOUT else path.open("w", newline="")


def main() -> None:
    """Predicts and prints the time it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    bundle = arguments.run / "model"
    card = json.loads((bundle / "bundle.json").read_text())
    model = network(card, read_safetensors(bundle / "weights.safetensors"))
    model = model.to(memory_format=torch.channels_last)  # a sixth faster
    paths = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    pictures = Pictures(
        paths[: arguments.limit],
        card["preprocessing"]["size"],
        *(MEAN, STD),
    )
    rows = []
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(pictures, 64, num_workers=2):
            batch = batch.contiguous(memory_format=torch.channels_last)
            rows.append(torch.softmax(model(batch) / card["temperature"], dim=1))
    probs = torch.cat(rows).numpy()
    if arguments.csv:
        with opened(arguments.csv) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "class", "probability", *card["classes"]])
            for path, row in zip(pictures.paths, probs, strict=True):
                best = int(row.argmax())
                table.writerow([path, card["classes"][best], row[best], *row])
    seconds = time.perf_counter() - START
    print(
        json.dumps(
            {"seconds": round(seconds, 2), "images_per_second": round(len(probs) / seconds)}
        ),
        file=sys.stderr if arguments.csv == STDOUT else sys.stdout,
    )


if __name__ == "__main__":
    main()
