"""Makes tests/models/golden: the outputs of PyTorch for the random ResNet weights of the tests.

Run it from the root of the repository, in an environment with torch and numpy. It needs neither JAX
nor torchvision.

    python -m scripts.make_torch_golden

Only outputs are stored; tests draw the weights again (tests/models/random_weights.py). The networks
are those of torchvision (v1.5) and of CLIP, with the same names.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.models.random_weights import UNITS, clip_weights, pictures, torchvision_weights

GOLDEN = Path("tests/models/golden")
WIDTH = 16  # of the networks for every depth
LABELS = [3, 1, 4, 1]  # of the images of the backward pass
GRID, CLIP_MEAN = 3, (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Unit(nn.Module):
    """torchvision's BasicBlock or Bottleneck (v1.5: the stride is in the 3x3 convolution).

    With `average`, CLIP's: an average over 2 x 2 cells in place of a stride.
    """

    def __init__(
        self, cin: int, features: int, stride: int, bottleneck: bool, average: bool = False
    ):
        super().__init__()
        plan = [(features, 3), (features, 3)]
        if bottleneck:
            plan = [(features, 1), (features, 3), (4 * features, 1)]
        self.depth = len(plan)
        before = cin
        self.pool = nn.AvgPool2d(stride) if average else nn.Identity()
        if average:
            stride = 1
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
            if k == self.depth - 1:
                y = self.pool(y)
        return (y + (x if self.downsample is None else self.downsample(self.pool(x)))).relu()


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


class Clip(nn.Module):
    """CLIP's network for images with the units of a ResNet-50 (openai/CLIP, `ModifiedResNet`)."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        cin = 3
        for k, cout in enumerate((width // 2, width // 2, width), start=1):
            conv = nn.Conv2d(cin, cout, 3, 2 if k == 1 else 1, padding=1, bias=False)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", nn.BatchNorm2d(cout))
            cin = cout
        for stage, count in enumerate(UNITS[50][1], start=1):
            layer = nn.Sequential()
            for unit in range(count):
                stride = 2 if stage > 1 and unit == 0 else 1
                layer.append(Unit(cin, width * 2 ** (stage - 1), stride, True, average=True))
                cin = 4 * width * 2 ** (stage - 1)
            self.add_module(f"layer{stage}", layer)
        self.attnpool = nn.Module()
        self.attnpool.positional_embedding = nn.Parameter(torch.zeros(1 + GRID**2, cin))
        for letter in "qkvc":
            cout = embedding if letter == "c" else cin
            self.attnpool.add_module(f"{letter}_proj", nn.Linear(cin, cout))
        self.heads = width // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for k in (1, 2, 3):
            x = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(x)).relu()
        x = nn.functional.avg_pool2d(x, 2)
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        mean, cells = self.attnpool.positional_embedding.split([1, GRID**2])
        cells = cells.T.reshape(1, -1, GRID, GRID)
        if x.shape[2:] != cells.shape[2:]:  # as timm does
            cells = nn.functional.interpolate(cells, x.shape[2:], mode="bicubic", antialias=True)
        x, cells = x.flatten(2), cells.flatten(2)  # [B, C, h w]
        x = torch.cat([x.mean(2, keepdim=True), x], 2) + torch.cat([mean.T[None], cells], 2)
        x, pool = x.permute(2, 0, 1), self.attnpool  # [1 + h w, B, C]
        x, _ = nn.functional.multi_head_attention_forward(
            *(x[:1], x, x),
            embed_dim_to_check=x.shape[-1],
            num_heads=self.heads,
            in_proj_weight=None,
            in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=pool.c_proj.weight,
            out_proj_bias=pool.c_proj.bias,
            use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight,
            k_proj_weight=pool.k_proj.weight,
            v_proj_weight=pool.v_proj.weight,
            training=False,
        )
        return x[0]


def network(depth: int, width: int) -> ResNet:
    """A ResNet with the random weights of the tests, in evaluation mode."""
    weights = {k: torch.tensor(v) for k, v in torchvision_weights(depth, width).items()}
    net = ResNet(depth, width, len(weights["fc.bias"]))
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return net.eval()


def normalised(
    images: np.ndarray,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
) -> torch.Tensor:
    """u8 NHWC -> f32 NCHW, normalised as torchvision's weights expect."""
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def forward() -> dict[str, np.ndarray]:
    """Logits [2, 10] of every depth, and of one network of full width."""
    outputs = {}
    with torch.no_grad():
        for depth, width in [*((depth, WIDTH) for depth in UNITS), (50, 64)]:
            logits = network(depth, width)(normalised(pictures(2, 64)))
            outputs[f"{depth}x{width}"] = logits.numpy()
    return outputs


def clip() -> dict[str, np.ndarray]:
    """Features [2, D] of CLIP's network, at the size of its positions and at others."""
    weights = clip_weights(GRID)
    tensors = {
        name.removeprefix("visual."): torch.tensor(array)
        for name, array in weights.items()
        if name.startswith("visual.")
    }
    width, embedding = len(tensors["bn3.weight"]), len(tensors["attnpool.c_proj.bias"])
    net = Clip(width, embedding)
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    outputs = {}
    with torch.no_grad():
        for size in (96, 64, 160):
            images = normalised(pictures(2, size), CLIP_MEAN, CLIP_STD)
            outputs[str(size)] = net.eval()(images).numpy()
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
    np.savez_compressed(GOLDEN / "clip.npz", **clip())
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
