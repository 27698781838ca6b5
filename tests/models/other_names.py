"""torchvision-named ResNet weights under the names and in the files of other frameworks."""

import json
import re
from pathlib import Path

import numpy as np

Weights = dict[str, np.ndarray]


def hugging_face(weights: Weights) -> Weights:
    """`transformers.ResNetForImageClassification`."""
    renamed = {}
    for name, array in weights.items():
        name = re.sub(r"^fc\.", "classifier.1.", name)
        name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
        name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
        if match := re.match(r"layer(\d)\.(\d+)\.(.*)", name):
            rest = match[3].replace("downsample.0", "shortcut.convolution")
            rest = rest.replace("downsample.1", "shortcut.normalization")
            for word, long in (("conv", "convolution"), ("bn", "normalization")):
                rest = re.sub(
                    rf"^{word}(\d)", lambda m, long=long: f"layer.{int(m[1]) - 1}.{long}", rest
                )
            name = f"resnet.encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.{rest}"
        renamed[name] = array
    return renamed


def timm_clip(weights: Weights) -> Weights:
    """CLIP's ResNet of `timm.create_model("resnet50_clip")`."""
    kinds = {"1": "1_1x1", "2": "2_kxk", "3": "3_1x1"}
    renamed = {}
    for name, array in weights.items():
        if not (name := name.removeprefix("visual.")).startswith(("conv", "bn", "layer", "attn")):
            continue
        name = re.sub(r"^(conv|bn)(\d)", lambda m: f"stem.conv{m[2]}.{m[1]}", name)
        if match := re.match(r"layer(\d)\.(\d+)\.(.*)", name):
            rest = match[3].replace("downsample.0", "shortcut.conv.conv")
            rest = rest.replace("downsample.1", "shortcut.conv.bn")
            rest = re.sub(r"^(conv|bn)(\d)", lambda m: f"conv{kinds[m[2]]}.{m[1]}", rest)
            name = f"stages.{int(match[1]) - 1}.{match[2]}.{rest}"
        name = name.replace("attnpool.positional_embedding", "head.pos_embed")
        name = name.replace("attnpool.c_proj", "head.proj").replace("attnpool", "head")
        renamed[name.replace("_proj", "") if name.startswith("head.") else name] = array
    return renamed


def keras(weights: Weights, new: bool) -> Weights:
    """`keras.applications.ResNet50`: its `new` names, or those until 2019. HWIO, with biases."""
    leaves = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    renamed = {}
    for name, array in weights.items():
        owner, leaf = name.rsplit(".", 1)
        if owner == "fc":
            layer = "predictions" if new else "fc1000"
            renamed[f"{layer}/{'kernel' if leaf == 'weight' else 'bias'}"] = array.T
        elif array.ndim == 4:
            layer = keras_layer(owner, new)
            renamed[f"{layer}/kernel"] = array.transpose(2, 3, 1, 0)
            renamed[f"{layer}/bias"] = np.full(len(array), 0.125, np.float32)
        else:
            renamed[f"{keras_layer(owner, new)}/{leaves[leaf]}"] = array
    return renamed


def keras_layer(owner: str, new: bool) -> str:
    """`layer3.2.conv1` -> `conv4_block3_1_conv`, or of old `res4c_branch2a`."""
    kind = "bn" if "bn" in owner or owner.endswith("downsample.1") else "conv"
    if not owner.startswith("layer"):
        return f"conv1_{kind}" if new else {"conv": "conv1", "bn": "bn_conv1"}[kind]
    stage, unit, rest = re.match(r"layer(\d)\.(\d+)\.(.*)", owner).groups()
    k = 0 if rest.startswith("downsample") else int(rest[-1])
    if new:
        return f"conv{int(stage) + 1}_block{int(unit) + 1}_{k}_{kind}"
    letter = chr(ord("a") + int(unit))
    branch = f"branch2{'abc'[k - 1]}" if k else "branch1"
    return f"{'res' if kind == 'conv' else 'bn'}{int(stage) + 1}{letter}_{branch}"


def keras_layers(weights: Weights, epsilon: float, strided: str) -> list[dict]:
    """The layers of a model.json; `strided` is a pattern of the convolutions with stride 2."""
    layers = []
    for name, array in weights.items():
        layer = name.split("/")[0]
        if name.endswith("gamma"):
            config = {"name": layer, "epsilon": epsilon, "momentum": 0.95}
        elif array.ndim == 4:
            stride = 2 if re.fullmatch(strided, layer) else 1
            config = {"name": layer, "strides": [stride] * 2, "padding": "valid"}
            config["kernel_size"] = list(array.shape[:2])
        else:
            continue
        layers.append({"class_name": "Any", "config": config})
    return layers


def write_tfjs(folder: Path, weights: Weights, layers: list[dict] = (), shards: int = 3) -> Path:
    """`model.json` and its shards, cut without regard to tensors; the path of `model.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in weights.values())
    cuts = [len(data) * k // shards for k in range(shards + 1)]
    paths = [f"group1-shard{k + 1}of{shards}.bin" for k in range(shards)]
    for path, start, end in zip(paths, cuts[:-1], cuts[1:], strict=True):
        (folder / path).write_bytes(data[start:end])
    specs = [
        {"name": name, "shape": list(a.shape), "dtype": "float32"} for name, a in weights.items()
    ]
    topology = {"model_config": {"class_name": "Model", "config": {"layers": list(layers)}}}
    model = {
        "modelTopology": topology,
        "weightsManifest": [{"paths": paths, "weights": specs}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"
