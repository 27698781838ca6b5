"""Random ResNet weights with torchvision's names, the same wherever they are made: numpy alone.

Both `scripts/make_torch_golden.py` (which runs in an environment with torch and without JAX) and
the tests draw from here, so that only outputs need to be kept in the repository.
"""

import zlib

import numpy as np

UNITS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
CLASSES = 10


def torchvision_shapes(depth: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the floating point tensors of torchvision's `resnet{depth}`."""
    bottleneck, units = UNITS[depth]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, cin: int, cout: int, window: int) -> None:
        shapes[f"{name}.weight"] = (cout, cin, window, window)

    def norm(name: str, features: int) -> None:
        for word in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{word}"] = (features,)

    conv("conv1", 3, width, 7)
    norm("bn1", width)
    cin = width
    for stage, count in enumerate(units, start=1):
        f = width * 2 ** (stage - 1)
        plan = [(f, 1), (f, 3), (4 * f, 1)] if bottleneck else [(f, 3), (f, 3)]
        for unit in range(count):
            layer, before = f"layer{stage}.{unit}", cin
            for k, (cout, window) in enumerate(plan, start=1):
                conv(f"{layer}.conv{k}", cin, cout, window)
                norm(f"{layer}.bn{k}", cout)
                cin = cout
            if unit == 0 and (stage > 1 or before != cin):
                conv(f"{layer}.downsample.0", before, cin, 1)
                norm(f"{layer}.downsample.1", cin)
    shapes["fc.weight"], shapes["fc.bias"] = (CLASSES, cin), (CLASSES,)
    return shapes


def clip_weights(grid: int, width: int = 4, embedding: int = 6) -> dict[str, np.ndarray]:
    """The names and shapes of CLIP's ResNet-50, with a part of its network for text."""
    bottom = torchvision_shapes(50, width)
    shapes = {
        f"visual.{name}": shape
        for name, shape in bottom.items()
        if not name.startswith(("conv1", "fc"))
    }
    cin = 3
    for k, cout in enumerate((width // 2, width // 2, width), start=1):
        shapes[f"visual.conv{k}.weight"] = (cout, cin, 3, 3)
        for word in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"visual.bn{k}.{word}"] = (cout,)
        cin = cout
    features = 32 * width
    shapes["visual.attnpool.positional_embedding"] = (1 + grid**2, features)
    for letter in "qkvc":
        outputs = embedding if letter == "c" else features
        shapes[f"visual.attnpool.{letter}_proj.weight"] = (outputs, features)
        shapes[f"visual.attnpool.{letter}_proj.bias"] = (outputs,)
    shapes |= {"positional_embedding": (5, 8), "transformer.resblocks.0.ln_1.weight": (8,)}
    return {name: draw(f"clip {name}", shape) for name, shape in shapes.items()}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """f32 numbers for one tensor, a function of its name and shape; signals keep their size."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith(".weight"):
        values = rng.uniform(0.8, 1.2, shape)
    elif len(shape) == 1:
        values = rng.normal(0, 0.1, shape)
    else:
        values = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
    return values.astype(np.float32)


def torchvision_weights(depth: int, width: int) -> dict[str, np.ndarray]:
    shapes = torchvision_shapes(depth, width)
    return {name: draw(f"{depth} {name}", shape) for name, shape in shapes.items()}


def pictures(count: int, size: int) -> np.ndarray:
    """u8 [count, size, size, 3], smooth enough that pooling matters."""
    rng = np.random.default_rng(count * 1000 + size)
    coarse = rng.integers(0, 256, (count, size // 4, size // 4, 3))
    fine = coarse.repeat(4, 1).repeat(4, 2) + rng.integers(-20, 21, (count, size, size, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)
