r"""Names of ResNet weights in other frameworks, one table per naming.

A rule is (pattern of the whole source name, our path, layout of the source array). Patterns catch
`stage`, `unit` and `conv` as the source counts them; the table gives the source's first number of
each. In paths, `{layer}` is our `layer{stage}_{unit}` and `{conv}` our number of the convolution.
"""

import itertools
from dataclasses import dataclass

from jaxgear.models.pretrained.resnet import CAFFE, CLIP, Preprocess, imagenet

Rule = tuple[str, str, str]

# Layout of the source -> transposition to ours (HWIO for convolutions, in x out for dense layers).
LAYOUTS: dict[str, tuple[int, ...] | None] = {"as is": None, "OIHW": (2, 3, 1, 0), "OI": (1, 0)}
_IMAGENET = imagenet()


@dataclass(frozen=True)
class Table:
    """One naming of ResNet tensors, and the properties that weights with these names share.

    `stride_in_1x1`, `epsilon`, `momentum` and `preprocess` may differ in a source that states them.
    """

    name: str
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = (r".+\.num_batches_tracked",)  # names that a network does not need
    first_stage: int = 1
    first_unit: int = 0
    first_conv: int = 1
    stride_in_1x1: bool = False
    epsilon: float = 1e-5
    momentum: float = 0.9
    preprocess: Preprocess = _IMAGENET


STAGE, UNIT, CONV = r"(?P<stage>\d{1,2})", r"(?P<unit>\d{1,3})", r"(?P<conv>\d)"

# The last word of a source name -> the collection and the last word of our path.
_TORCH_NORM = {
    r"\.weight": ("params", "scale"),
    r"\.bias": ("params", "bias"),
    r"\.running_mean": ("batch_stats", "mean"),
    r"\.running_var": ("batch_stats", "var"),
}
_KERAS_NORM = {
    "/gamma": ("params", "scale"),
    "/beta": ("params", "bias"),
    "/moving_mean": ("batch_stats", "mean"),
    "/moving_variance": ("batch_stats", "var"),
}


def _norm(words: dict[str, tuple[str, str]], pattern: str, path: str) -> tuple[Rule, ...]:
    return tuple(
        (pattern + word, f"{of}/{path}/{leaf}", "as is") for word, (of, leaf) in words.items()
    )


def _torch(conv: str, norm: str, path: str) -> tuple[Rule, ...]:
    """A convolution and its normalisation; `path` has `*` in place of `conv` and `norm`."""
    kernel = f"params/{path.replace('*', 'conv')}/kernel"
    return (
        (rf"{conv}\.weight", kernel, "OIHW"),
        *_norm(_TORCH_NORM, norm, path.replace("*", "norm")),
    )


def _torch_dense(pattern: str, path: str) -> tuple[Rule, ...]:
    return (
        (rf"{pattern}\.weight", f"{path}/kernel", "OI"),
        (rf"{pattern}\.bias", f"{path}/bias", "as is"),
    )


def _torch_attention(positions: str, *projections: str) -> tuple[Rule, ...]:
    """`AttentionPool`, from the patterns of its positions, query, key, value and output."""
    layers = zip(projections, ("query", "key", "value", "out"), strict=True)
    dense = [_torch_dense(pattern, f"params/pool/{ours}") for pattern, ours in layers]
    return ((positions, "params/pool/positions", "as is"), *itertools.chain(*dense))


def _keras(conv: str, norm: str, path: str) -> tuple[Rule, ...]:
    """A convolution and its normalisation, as `_torch`."""
    return (
        *_keras_dense(conv, f"params/{path.replace('*', 'conv')}"),
        *_norm(_KERAS_NORM, norm, path.replace("*", "norm")),
    )


def _keras_dense(pattern: str, path: str) -> tuple[Rule, ...]:
    return tuple((rf"{pattern}/{word}", f"{path}/{word}", "as is") for word in ("kernel", "bias"))


_LAYER = rf"layer{STAGE}\.{UNIT}"
TORCHVISION = Table(
    name="torchvision or timm",
    rules=(
        *_torch("conv1", "bn1", "*1"),
        *_torch(rf"{_LAYER}\.conv{CONV}", rf"{_LAYER}\.bn{CONV}", "{layer}/*{conv}"),
        *_torch(rf"{_LAYER}\.downsample\.0", rf"{_LAYER}\.downsample\.1", "{layer}/*_skip"),
        *_torch_dense("fc", "head"),
    ),
)

_STEM = r"(?:resnet\.)?embedder\.embedder"
_UNIT = rf"(?:resnet\.)?encoder\.stages\.{STAGE}\.layers\.{UNIT}"
_PART = rf"{_UNIT}\.layer\.{CONV}"
HUGGING_FACE = Table(
    name="Hugging Face transformers",
    rules=(
        *_torch(rf"{_STEM}\.convolution", rf"{_STEM}\.normalization", "*1"),
        *_torch(rf"{_PART}\.convolution", rf"{_PART}\.normalization", "{layer}/*{conv}"),
        *_torch(
            rf"{_UNIT}\.shortcut\.convolution",
            rf"{_UNIT}\.shortcut\.normalization",
            "{layer}/*_skip",
        ),
        *_torch_dense(r"classifier\.1", "head"),
    ),
    first_stage=0,
    first_conv=0,
)

# Of CLIP, only the network for images is read.
_IMAGES = r"(?:visual\.)?"
_LAYER = rf"{_IMAGES}layer{STAGE}\.{UNIT}"
OPEN_CLIP = Table(
    name="CLIP",
    rules=(
        *_torch(f"{_IMAGES}conv1", f"{_IMAGES}bn1", "*1"),
        *_torch(f"{_IMAGES}conv2", f"{_IMAGES}bn2", "*2"),
        *_torch(f"{_IMAGES}conv3", f"{_IMAGES}bn3", "*3"),
        *_torch(rf"{_LAYER}\.conv{CONV}", rf"{_LAYER}\.bn{CONV}", "{layer}/*{conv}"),
        *_torch(rf"{_LAYER}\.downsample\.0", rf"{_LAYER}\.downsample\.1", "{layer}/*_skip"),
        *_torch_attention(
            rf"{_IMAGES}attnpool\.positional_embedding",
            *(rf"{_IMAGES}attnpool\.{letter}_proj" for letter in "qkvc"),
        ),
    ),
    ignored=(
        r".+\.num_batches_tracked",
        r"transformer\..+|token_embedding\..+|positional_embedding|ln_final\..+|text_projection",
        r"logit_scale|input_resolution|context_length|vocab_size",
    ),
    preprocess=CLIP,
)

_UNIT = rf"stages\.{STAGE}\.{UNIT}"
_PART, _SKIP = rf"{_UNIT}\.conv{CONV}_\w+", rf"{_UNIT}\.shortcut\.conv"
TIMM_CLIP = Table(
    name="CLIP in timm",
    rules=(
        *_torch(r"stem\.conv1\.conv", r"stem\.conv1\.bn", "*1"),
        *_torch(r"stem\.conv2\.conv", r"stem\.conv2\.bn", "*2"),
        *_torch(r"stem\.conv3\.conv", r"stem\.conv3\.bn", "*3"),
        *_torch(rf"{_PART}\.conv", rf"{_PART}\.bn", "{layer}/*{conv}"),
        *_torch(rf"{_SKIP}\.conv", rf"{_SKIP}\.bn", "{layer}/*_skip"),
        *_torch_attention(r"head\.pos_embed", r"head\.q", r"head\.k", r"head\.v", r"head\.proj"),
    ),
    first_stage=0,
    preprocess=CLIP,
)

# Units are letters, or `a`, `b1`, `b2`, ... beyond ResNet-50. Convolutions are letters.
_PART = r"(?P<unit>[a-z]\d{0,3})_branch2(?P<conv>[abc])"
_SKIP = r"(?P<unit>a)_branch1"
KERAS_OLD = Table(
    name="Keras (res2a_branch2a ...)",
    rules=(
        *_keras("conv1", "bn_conv1", "*1"),
        *_keras(rf"res{STAGE}{_PART}", rf"bn{STAGE}{_PART}", "{layer}/*{conv}"),
        *_keras(rf"res{STAGE}{_SKIP}", rf"bn{STAGE}{_SKIP}", "{layer}/*_skip"),
        *_keras_dense(r"fc\d+", "head"),
    ),
    ignored=(),
    first_stage=2,
    stride_in_1x1=True,
    epsilon=1e-3,
    momentum=0.99,
    preprocess=CAFFE,
)

_UNIT = rf"conv{STAGE}_block{UNIT}"
_PART = rf"{_UNIT}_(?P<conv>[123])"
KERAS_NEW = Table(
    name="Keras (conv2_block1_1_conv ...)",
    rules=(
        *_keras("conv1_conv", "conv1_bn", "*1"),
        *_keras(rf"{_PART}_conv", rf"{_PART}_bn", "{layer}/*{conv}"),
        *_keras(rf"{_UNIT}_0_conv", rf"{_UNIT}_0_bn", "{layer}/*_skip"),
        *_keras_dense(r"(?:predictions|probs)", "head"),
    ),
    ignored=(),
    first_stage=2,
    first_unit=1,
    stride_in_1x1=True,
    epsilon=1.001e-5,
    momentum=0.99,
    preprocess=CAFFE,
)

TABLES = (TORCHVISION, HUGGING_FACE, OPEN_CLIP, TIMM_CLIP, KERAS_OLD, KERAS_NEW)
