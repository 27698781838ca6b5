r"""Names of ResNet weights in other frameworks, one table per naming.

A rule is (pattern of the whole source name, our path, layout of the source array). Patterns catch
`stage`, `unit` and `conv` as the source counts them; the table gives the source's first number of
each. In paths, `{layer}` is our `layer{stage}_{unit}` and `{conv}` our number of the convolution.
"""

from dataclasses import dataclass

from jaxgear.models.pretrained.resnet import CAFFE, Preprocess, imagenet

Rule = tuple[str, str, str]

# Layout of the source -> transposition to ours (HWIO for convolutions, in x out for dense layers).
LAYOUTS: dict[str, tuple[int, ...] | None] = {"as is": None, "OIHW": (2, 3, 1, 0), "OI": (1, 0)}


@dataclass(frozen=True)
class Table:
    """One naming of ResNet tensors, and the properties that weights with these names share.

    `stride_in_1x1`, `epsilon`, `momentum` and `preprocess` are defaults; the source may differ.
    """

    name: str
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...]  # patterns of names that a network does not need
    first_stage: int
    first_unit: int
    first_conv: int
    stride_in_1x1: bool
    epsilon: float
    momentum: float
    preprocess: Preprocess


STAGE, UNIT, CONV = r"(?P<stage>\d{1,2})", r"(?P<unit>\d{1,3})", r"(?P<conv>\d)"

# Word after a pattern -> our path, for the numbers of a normalisation.
TORCH_NORM = {
    r"\.weight": "params/{}/scale",
    r"\.bias": "params/{}/bias",
    r"\.running_mean": "batch_stats/{}/mean",
    r"\.running_var": "batch_stats/{}/var",
}
KERAS_NORM = {
    "/gamma": "params/{}/scale",
    "/beta": "params/{}/bias",
    "/moving_mean": "batch_stats/{}/mean",
    "/moving_variance": "batch_stats/{}/var",
}


def _norm(words: dict[str, str], pattern: str, path: str) -> tuple[Rule, ...]:
    return tuple(
        (pattern + word, ours.replace("{}", path), "as is") for word, ours in words.items()
    )


def _keras_layer(pattern: str, path: str) -> tuple[Rule, ...]:
    return tuple((rf"{pattern}/{word}", f"{path}/{word}", "as is") for word in ("kernel", "bias"))


TORCHVISION = Table(
    name="torchvision or timm",
    rules=(
        (r"conv1\.weight", "params/conv1/kernel", "OIHW"),
        *_norm(TORCH_NORM, "bn1", "norm1"),
        (rf"layer{STAGE}\.{UNIT}\.conv{CONV}\.weight", "params/{layer}/conv{conv}/kernel", "OIHW"),
        *_norm(TORCH_NORM, rf"layer{STAGE}\.{UNIT}\.bn{CONV}", "{layer}/norm{conv}"),
        (
            rf"layer{STAGE}\.{UNIT}\.downsample\.0\.weight",
            "params/{layer}/conv_skip/kernel",
            "OIHW",
        ),
        *_norm(TORCH_NORM, rf"layer{STAGE}\.{UNIT}\.downsample\.1", "{layer}/norm_skip"),
        (r"fc\.weight", "head/kernel", "OI"),
        (r"fc\.bias", "head/bias", "as is"),
    ),
    ignored=(r".+\.num_batches_tracked",),
    first_stage=1,
    first_unit=0,
    first_conv=1,
    stride_in_1x1=False,
    epsilon=1e-5,
    momentum=0.9,
    preprocess=imagenet(),
)

_STEM = r"(?:resnet\.)?embedder\.embedder"
_UNIT = rf"(?:resnet\.)?encoder\.stages\.{STAGE}\.layers\.{UNIT}"
HUGGING_FACE = Table(
    name="Hugging Face transformers",
    rules=(
        (rf"{_STEM}\.convolution\.weight", "params/conv1/kernel", "OIHW"),
        *_norm(TORCH_NORM, rf"{_STEM}\.normalization", "norm1"),
        (
            rf"{_UNIT}\.layer\.{CONV}\.convolution\.weight",
            "params/{layer}/conv{conv}/kernel",
            "OIHW",
        ),
        *_norm(TORCH_NORM, rf"{_UNIT}\.layer\.{CONV}\.normalization", "{layer}/norm{conv}"),
        (rf"{_UNIT}\.shortcut\.convolution\.weight", "params/{layer}/conv_skip/kernel", "OIHW"),
        *_norm(TORCH_NORM, rf"{_UNIT}\.shortcut\.normalization", "{layer}/norm_skip"),
        (r"classifier\.1\.weight", "head/kernel", "OI"),
        (r"classifier\.1\.bias", "head/bias", "as is"),
    ),
    ignored=(r".+\.num_batches_tracked",),
    first_stage=0,
    first_unit=0,
    first_conv=0,
    stride_in_1x1=False,
    epsilon=1e-5,
    momentum=0.9,
    preprocess=imagenet(),
)

# Units are letters, or `a`, `b1`, `b2`, ... beyond ResNet-50. Convolutions are letters.
_LETTERED = r"(?P<unit>[a-z]\d{0,3})_branch2(?P<conv>[abc])"
KERAS_OLD = Table(
    name="Keras (res2a_branch2a ...)",
    rules=(
        *_keras_layer("conv1", "params/conv1"),
        *_norm(KERAS_NORM, "bn_conv1", "norm1"),
        *_keras_layer(rf"res{STAGE}{_LETTERED}", "params/{layer}/conv{conv}"),
        *_norm(KERAS_NORM, rf"bn{STAGE}{_LETTERED}", "{layer}/norm{conv}"),
        *_keras_layer(rf"res{STAGE}(?P<unit>a)_branch1", "params/{layer}/conv_skip"),
        *_norm(KERAS_NORM, rf"bn{STAGE}(?P<unit>a)_branch1", "{layer}/norm_skip"),
        *_keras_layer(r"fc\d+", "head"),
    ),
    ignored=(),
    first_stage=2,
    first_unit=0,
    first_conv=1,
    stride_in_1x1=True,
    epsilon=1e-3,
    momentum=0.99,
    preprocess=CAFFE,
)

_BLOCK = rf"conv{STAGE}_block{UNIT}"
KERAS_NEW = Table(
    name="Keras (conv2_block1_1_conv ...)",
    rules=(
        *_keras_layer("conv1_conv", "params/conv1"),
        *_norm(KERAS_NORM, "conv1_bn", "norm1"),
        *_keras_layer(rf"{_BLOCK}_(?P<conv>[123])_conv", "params/{layer}/conv{conv}"),
        *_norm(KERAS_NORM, rf"{_BLOCK}_(?P<conv>[123])_bn", "{layer}/norm{conv}"),
        *_keras_layer(rf"{_BLOCK}_0_conv", "params/{layer}/conv_skip"),
        *_norm(KERAS_NORM, rf"{_BLOCK}_0_bn", "{layer}/norm_skip"),
        *_keras_layer(r"(?:predictions|probs)", "head"),
    ),
    ignored=(),
    first_stage=2,
    first_unit=1,
    first_conv=1,
    stride_in_1x1=True,
    epsilon=1.001e-5,
    momentum=0.99,
    preprocess=CAFFE,
)

TABLES = (TORCHVISION, HUGGING_FACE, KERAS_OLD, KERAS_NEW)
