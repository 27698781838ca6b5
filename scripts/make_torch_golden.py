"""Makes tests/models/golden: the outputs of PyTorch for the random ResNet weights of the tests.

Run it from the root of the repository, in an environment with torch and numpy. It needs neither JAX
nor torchvision.

    python -m scripts.make_torch_golden

Only outputs are stored; tests draw the weights again (tests/models/random_weights.py). The networks
are those of torchvision (v1.5), with the same names.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.models.random_weights import UNITS, pictures, torchvision_weights

GOLDEN = Path("tests/models/golden")
WIDTH = 16  # of the networks for every depth
LABELS = [3, 1, 4, 1]  # of the images of the backward pass


class Unit(nn.Module):
    """torchvision's BasicBlock or Bottleneck (v1.5: the stride is in the 3x3 convolution)."""

    def __init__(self, cin: int, features: int, stride: int, bottleneck: bool):
        super().__init__()
        plan = [(features, 3), (features, 3)]
        if bottleneck:
            plan = [(features, 1), (features, 3), (4 * features, 1)]
        self.depth = len(plan)
        before = cin
        for k, (cout, window) in enumerate(plan, start=1):
            step = stride if window == 3 and k == len(plan) - 1 else 1
            conv = nn.Conv2d(cin, cout, window, step, padding=window // 2, bias=False)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", nn.BatchNorm2d(cout))
            cin = cout
        self.downsample = None
        if stride != 1 or before != cin:
            skip = nn.Conv2d(before, cin, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, nn.BatchNorm2d(cin))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for k in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            if k < self.depth:
                y = y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, depth: int, width: int, classes: int):
        super().__init__()
        bottleneck, units = UNITS[depth]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        cin = width
        for stage, count in enumerate(units, start=1):
            layer = nn.Sequential()
            features = width * 2 ** (stage - 1)
            for unit in range(count):
                stride = 2 if stage > 1 and unit == 0 else 1
                layer.append(Unit(cin, features, stride, bottleneck))
                cin = features * (4 if bottleneck else 1)
            self.add_module(f"layer{stage}", layer)
        self.fc = nn.Linear(cin, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


def network(depth: int, width: int) -> ResNet:
    """A ResNet with the random weights of the tests, in evaluation mode."""
    weights = {k: torch.tensor(v) for k, v in torchvision_weights(depth, width).items()}
    net = ResNet(depth, width, len(weights["fc.bias"]))
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return net.eval()


def normalised(images: np.ndarray) -> torch.Tensor:
    """u8 NHWC -> f32 NCHW, normalised as torchvision's weights expect."""
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def forward() -> dict[str, np.ndarray]:
    """Logits [2, 10] of every depth, and of one network of full width."""
    outputs = {}
    with torch.no_grad():
        for depth, width in [*((depth, WIDTH) for depth in UNITS), (50, 64)]:
            logits = network(depth, width)(normalised(pictures(2, 64)))
            outputs[f"{depth}x{width}"] = logits.numpy()
    return outputs


def backward() -> dict[str, np.ndarray]:
    """Fine-tuning of stage 4 and the head of a ResNet-50: loss, gradients, running means.

    Stage 4 normalises with the batch's statistics; the rest is frozen. Of each gradient it stores
    the norm and the first eight numbers.
    """
    net = network(50, WIDTH)
    net.layer4.train()
    loss = nn.functional.cross_entropy(net(normalised(pictures(4, 64))), torch.tensor(LABELS))
    loss.backward()
    outputs = {"loss": loss.detach().numpy()}
    for name, parameter in net.named_parameters():
        if name.startswith(("layer4", "fc")):
            outputs[f"norm {name}"] = parameter.grad.norm().numpy()
            outputs[f"first {name}"] = parameter.grad.flatten()[:8].numpy()
    for name, buffer in net.named_buffers():
        if name.startswith("layer4") and name.endswith("running_mean"):
            outputs[f"buffer {name}"] = buffer.numpy()
    return outputs


def main() -> None:
    """Writes the files of `GOLDEN` and prints their sizes."""
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "forward.npz", **forward())
    np.savez_compressed(GOLDEN / "backward.npz", **backward())
    # Files as torch writes them: a whole network, odd tensors, and the format before torch 1.6.
    torch.save(network(18, 2).state_dict(), GOLDEN / "resnet18_width2.pth")
    odd = {
        "transposed": torch.arange(12.0).reshape(3, 4).t(),
        "slice": torch.arange(10.0)[2:9:3],
        "parameter": nn.Parameter(torch.tensor([1.5, -2.0])),
        "half": torch.tensor([0.5, 1.0]).half(),
        "bfloat16": torch.tensor([0.5, 3.0]).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    torch.save({"state_dict": odd}, GOLDEN / "odd.pth")
    torch.save(odd, GOLDEN / "before_1.6.pth", _use_new_zipfile_serialization=False)
    for file in sorted(GOLDEN.iterdir()):
        print(f"{file}  {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
