"""Layers of jaxgear's networks in PyTorch, for the peers beside this file."""

import torch
import torch.nn.functional as F
from torch import nn


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, features: int, kernel: int = 3, **_: object):
        super().__init__()
        self.conv = nn.LazyConv2d(features, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.LazyBatchNorm2d()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, features: int, kernel: int = 3):
        super().__init__()
        self.conv1, self.conv2 = Conv(features, kernel), Conv(features, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


class SpaceToDepth(nn.Module):
    """Squares of pixels become channels, in the order row, column, channel."""

    def __init__(self, patch: int):
        super().__init__()
        self.patch = patch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, height, width = x.shape
        p = self.patch
        x = x.reshape(b, c, height // p, p, width // p, p).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(b, p * p * c, height // p, width // p)


class GlobalPool(nn.Module):
    """Mean and maximum over the whole map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def scratch(classes: int, size: int) -> nn.Sequential:
    """The network of experiments/scratch.py."""
    pool = lambda: nn.MaxPool2d(2)  # noqa: E731
    layers = [SpaceToDepth(2), Conv(32), pool(), Conv(64), pool(), Conv(128), Residual(128), pool()]
    return convnet([*layers, Conv(256), Residual(256), GlobalPool()], classes, size)


def convnet(layers: list[nn.Module], classes: int, size: int) -> nn.Sequential:
    """Layers and a head, with the shapes that pictures of `size` pixels give them."""
    model = nn.Sequential(*layers, nn.LazyLinear(classes)).eval()
    model(torch.zeros(1, 3, size, size))
    return model
