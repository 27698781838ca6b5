"""jaxgear's networks in PyTorch, for the peers beside this file."""

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
    """Two convolutions; their input is added to their output."""

    def __init__(self, features: int, kernel: int = 3):
        super().__init__()
        self.conv1, self.conv2 = Conv(features, kernel), Conv(features, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x))


class SpaceToDepth(nn.Module):
    """Turns squares of pixels into channels, in the order row, column, channel."""

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


class ReferenceCNN(nn.Module):
    """The CNN of published solutions, for 128 px (experiments/reference.py): 0.16 M weights.

    conv24-pool, conv24-pool, conv24, conv24 (one shared kernel), conv48-pool, dropout, dense.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(24, 48, 3, padding=1)
        self.drop = nn.Dropout2d(0.5)
        self.head = nn.Linear(16 * 16 * 48, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.conv2(F.relu(self.conv2(x))))
        x = F.relu(F.max_pool2d(self.conv3(x), 2))
        x = F.dropout(self.drop(x), training=self.training)
        return self.head(x.flatten(1))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; their input is added to their output."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.skip = nn.Identity()
        if inputs != outputs or stride > 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet50_features() -> nn.Sequential:
    """ResNet-50 up to its pooled features [B, 2048], with random weights; needs no torchvision."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(depth):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def scratch(classes: int, size: int) -> nn.Sequential:
    """The network of experiments/scratch.py."""
    pool = lambda: nn.MaxPool2d(2)  # noqa: E731
    layers = [SpaceToDepth(2), Conv(32), pool(), Conv(64), pool(), Conv(128), Residual(128), pool()]
    return convnet([*layers, Conv(256), Residual(256), GlobalPool()], classes, size)


def convnet(layers: list[nn.Module], classes: int, size: int) -> nn.Sequential:
    """Layers and a head, initialised for pictures of `size` pixels."""
    model = nn.Sequential(*layers, nn.LazyLinear(classes)).eval()
    model(torch.zeros(1, 3, size, size))
    return model
