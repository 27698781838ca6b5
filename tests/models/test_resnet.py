"""ResNets against torch (golden files), folding, frozen stages, and reduced precision."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from random_weights import clip_weights, pictures, torchvision_weights
from safetensors.numpy import save_file

from jaxgear.errors import UsageError
from jaxgear.models.pretrained.backbone import Backbone, load_backbone
from jaxgear.models.pretrained.resnet import DEPTHS, ResNet, fold_batch_norm

GOLDEN = Path(__file__).parent / "golden"  # made by scripts/make_torch_golden.py
WIDTH = 16


def backbone(folder: Path, depth: int, width: int) -> Backbone:
    save_file(torchvision_weights(depth, width), folder / "torch.safetensors")
    return load_backbone(folder / "torch.safetensors")


def logits(net: Backbone, images: np.ndarray) -> np.ndarray:
    return np.asarray(net.features(images) @ net.head["kernel"] + net.head["bias"])


def apply(module: ResNet, *args, **kwargs):
    """Jitted, as op by op it takes many times as long."""
    mutable = kwargs.pop("mutable", False)
    run = functools.partial(module.apply, mutable=mutable, **kwargs)
    return jax.jit(run)(*args)


def tiny(**fields) -> tuple[ResNet, dict]:
    """A random ResNet whose statistics are not the initial zeros and ones."""
    module = ResNet(width=4, **fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.7, 1.3, shape.shape), jnp.float32)
        size = 0.1 if len(shape.shape) == 1 else np.prod(shape.shape[:-1]) ** -0.5
        return jnp.asarray(rng.normal(0, size, shape.shape), jnp.float32)

    return module, jax.tree.map_with_path(leaf, shapes)


@pytest.mark.parametrize(  # 101 and 152 have the blocks of 50, more of them
    "depth", [pytest.param(d, marks=[pytest.mark.slow] * (d > 50)) for d in DEPTHS]
)
def test_every_depth_agrees_with_torch(depth, tmp_path):
    net = backbone(tmp_path, depth, WIDTH)
    expected = np.load(GOLDEN / "forward.npz")[f"{depth}x{WIDTH}"]
    images = pictures(2, 64)
    assert net.module.depth == depth
    # The deepest are compiled once only: what differs here does not depend on depth.
    for variant in (net, net.fold()) if depth <= 50 else (net.fold(),):
        error = np.abs(logits(variant, images) - expected).max()
        assert error < 1e-4 * np.abs(expected).max()
    if depth == 50:
        probs = np.asarray(net.probs(images))
        np.testing.assert_allclose(probs, jax.nn.softmax(expected), atol=1e-4)


@pytest.mark.slow
def test_full_width_agrees_with_torch(tmp_path):
    net = backbone(tmp_path, 50, 64)
    expected = np.load(GOLDEN / "forward.npz")["50x64"]
    error = np.abs(logits(net, pictures(2, 64)) - expected).max()
    assert error < 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Backbone:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(clip_weights(grid=3), path)
    return load_backbone(path)


@pytest.mark.parametrize("size", [96, 64, 160])  # 3 x 3 cells, as its positions; 2 x 2 and 5 x 5
def test_clip_agrees_with_torch(clip, size):
    expected = np.load(GOLDEN / "clip.npz")[str(size)]
    images = pictures(2, size)
    for variant in (clip, clip.fold()):
        np.testing.assert_allclose(variant.features(images), expected, atol=2e-5)


@pytest.mark.parametrize("size", [24, 30])
def test_images_that_are_too_small_for_clip_are_refused(clip, size):
    with pytest.raises(UsageError, match="32 pixels a side"):
        clip.features(pictures(1, 32)[:, :size, :size])


def test_what_clip_does_in_another_way_matters(clip):
    module, variables = clip.module, clip.variables
    x = clip.preprocess(jnp.asarray(pictures(2, 96)))
    expected = apply(module, variables, x)
    pool = variables["params"]["pool"]
    for changed in (pool["positions"][::-1], 0 * pool["positions"]):
        params = variables["params"] | {"pool": pool | {"positions": changed}}
        other = apply(module, variables | {"params": params}, x)
        assert np.abs(other - expected).max() > 1e-3
    mean = apply(module, variables, x, method="stages").mean((1, 2))
    assert mean.shape == (2, 128)


def test_clip_in_bfloat16_is_close_and_gives_float32(clip):
    x = clip.preprocess(jnp.asarray(pictures(2, 96)))
    half = apply(clip.module.clone(dtype="bfloat16"), clip.variables, x)
    assert half.dtype == jnp.float32
    expected = apply(clip.module, clip.variables, x)
    assert jnp.linalg.norm(half - expected) / jnp.linalg.norm(expected) < 0.05


def test_fine_tuning_gradients_agree_with_torch(tmp_path):
    net = backbone(tmp_path, 50, WIDTH)
    golden = np.load(GOLDEN / "backward.npz")
    x, labels = net.preprocess(jnp.asarray(pictures(4, 64))), jnp.array([3, 1, 4, 1])
    params, stats = net.variables["params"], net.variables["batch_stats"]
    tuned = {name: p for name, p in params.items() if name.startswith("layer4")}
    below = apply(net.module, net.variables, x, last=3, method="stages")

    @jax.jit
    @jax.value_and_grad
    def loss_of(trained):
        variables = {"params": params | trained["stage"], "batch_stats": stats}
        x, _ = net.module.apply(
            variables, below, train=True, first=4, mutable=["batch_stats"], method="stages"
        )
        scores = x.mean((1, 2)) @ trained["head"]["kernel"] + trained["head"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    loss, grads = loss_of({"stage": tuned, "head": net.head})
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-4)
    checked = 0
    for path, ours in flatten_dict(grads).items():
        name = torch_name(path)
        # OIHW and (out, in), as torch has them
        ours = np.asarray(ours).T if ours.ndim == 2 else np.asarray(ours)
        ours = ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours
        norm = golden[f"norm {name}"]
        np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=1e-3, err_msg=name)
        first = golden[f"first {name}"]
        scale = norm / np.sqrt(ours.size)  # of one number of this gradient
        np.testing.assert_allclose(ours.ravel()[:8], first, atol=2e-3 * scale, err_msg=name)
        checked += 1
    assert checked == sum(name.startswith("norm ") for name in golden)

    _, updates = apply(
        net.module, net.variables, x, train=True, train_from=4, mutable=["batch_stats"]
    )
    for name in (name for name in golden if name.startswith("buffer ")):
        layer, unit, norm, _ = name.removeprefix("buffer ").split(".")[-4:]
        if norm != "1":  # `downsample.1` has its own path
            ours = updates["batch_stats"][f"{layer}_{unit}"][norm.replace("bn", "norm")]["mean"]
            np.testing.assert_allclose(ours, golden[name], atol=1e-4)


def torch_name(path: tuple[str, ...]) -> str:
    """Our path of a parameter of stage 4 or of the head -> torchvision's name."""
    *layer, owner, leaf = path
    leaf = {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]
    if layer == []:
        return f"fc.{leaf}"
    if owner == "head":
        return f"fc.{leaf}"
    place = layer[-1].replace("_", ".")
    owner = {"conv_skip": "downsample.0", "norm_skip": "downsample.1"}.get(owner, owner)
    return f"{place}.{owner.replace('norm', 'bn')}.{leaf}"


@pytest.mark.parametrize("fields", [{"depth": 18}, {"depth": 50, "stride_in_1x1": True}])
@pytest.mark.parametrize("conv_bias", [False, True])
def test_folding_changes_nothing(fields, conv_bias):
    module, variables = tiny(conv_bias=conv_bias, epsilon=1e-3, **fields)
    x = jax.random.normal(jax.random.key(2), (2, 48, 48, 3))
    expected = apply(module, variables, x)
    folded = module.clone(norm=False, conv_bias=True)
    found = apply(folded, fold_batch_norm(variables, 1e-3), x)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-6)


def test_stages_can_be_run_apart():
    module, variables = tiny(depth=18)
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    kept = apply(module, variables, x, last=2, method="stages")
    assert kept.shape == (2, 8, 8, 8)
    whole = apply(module, variables, x, method="stages")
    assert whole.shape == (2, 2, 2, 32)
    rest = apply(module, variables, kept, first=3, method="stages")
    np.testing.assert_allclose(rest, whole, rtol=1e-6)
    np.testing.assert_allclose(whole.mean((1, 2)), apply(module, variables, x), rtol=1e-6)


def test_only_stages_in_training_change_their_statistics():
    module, variables = tiny(depth=18)
    x = jax.random.normal(jax.random.key(2), (4, 64, 64, 3))
    for train_from in range(6):
        _, new = apply(
            module, variables, x, train=True, train_from=train_from, mutable=["batch_stats"]
        )
        for name, old in variables["batch_stats"].items():
            stage = int(name[5]) if name.startswith("layer") else 0
            same = jax.tree.map(np.array_equal, old, new["batch_stats"][name])
            assert all(jax.tree.leaves(same)) == (stage < train_from), (name, train_from)
    _, new = apply(module, variables, x, mutable=["batch_stats"])
    assert jax.tree.all(jax.tree.map(np.array_equal, new["batch_stats"], variables["batch_stats"]))


def test_stride_and_epsilon_matter():
    module, variables = tiny(depth=50)
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    plain = apply(module, variables, x)
    for other in (module.clone(stride_in_1x1=True), module.clone(epsilon=1e-3)):
        changed = apply(other, variables, x)
        assert float(jnp.abs(changed - plain).max() / jnp.abs(plain).max()) > 1e-3


@pytest.mark.parametrize("size", [33, 64, 71])
def test_odd_sizes_work_and_give_features_of_one_length(size):
    module, variables = tiny(depth=18)
    assert apply(module, variables, jnp.zeros((1, size, size + 5, 3))).shape == (1, 32)


def dtypes(tree) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def test_bfloat16_computes_close_with_parameters_and_statistics_in_float32():
    module, variables = tiny(depth=18)
    x = jax.random.normal(jax.random.key(2), (8, 64, 64, 3))
    half = module.clone(dtype="bfloat16")
    assert dtypes(jax.eval_shape(half.init, jax.random.key(0), x)) == {"float32"}
    features, new = apply(half, variables, x, train=True, mutable=["batch_stats"])
    assert features.dtype == jnp.float32
    assert dtypes(new) == {"float32"}
    expected, _ = apply(module, variables, x, train=True, mutable=["batch_stats"])
    error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
    assert float(error) < 0.05
