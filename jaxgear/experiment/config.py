"""Flags that all experiments have, and which of them a resumed run may change.

A config is a frozen dataclass of scalars; `flags.parse` turns its fields into flags. The type of a
field (`Positive`, `Share`, ...) gives its valid range, also for fields that an experiment adds.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jaxgear.bundle import MAX_SIZE
from jaxgear.errors import UsageError
from jaxgear.files import read_json
from jaxgear.paths import expanded, is_address

PATHS = (
    "data",
    "labels",
    "unlabelled",
    "out",
    "resume",
    "init_from",
    "backgrounds",
    "weights",
)  # of any config
ADDRESSES = ("data", "unlabelled", "weights")  # paths that may be addresses
LAST_SEED = 2**32 - 1  # the largest seed of both JAX's keys and numpy's generators


@dataclasses.dataclass(frozen=True)
class Range:
    """The valid range of a field, part of its type; `Config.check` and `Recipe` enforce it."""

    low: float
    high: float = math.inf
    low_too: bool = True
    high_too: bool = False

    def reason(self, value: float) -> str | None:
        """Why `value` is outside the range, or None."""
        above = value >= self.low if self.low_too else value > self.low
        below = value <= self.high if self.high_too else value < self.high
        if above and below:
            return None
        if not math.isfinite(value):
            return "must be finite"
        low = f"{'at least' if self.low_too else 'above'} {self.low:.10g}"
        high = f"{'at most' if self.high_too else 'below'} {self.high:.10g}"
        return f"must be {low}" + (f" and {high}" if math.isfinite(self.high) else "")


Count = Annotated[int, Range(1)]
Size = Annotated[int, Range(1, MAX_SIZE, high_too=True)]  # pixels
Positive = Annotated[float, Range(0, low_too=False)]
Share = Annotated[float, Range(0, 1, high_too=True)]
Fraction = Annotated[float, Range(0, 1)]  # below 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags that all experiments have. Every field is a scalar, also those an experiment adds.

    >>> config = jaxgear.Config(data="drawn:600", image_size=64, epochs=10)
    >>> config.batch_size, config.seed
    (48, 0)
    """

    data: str = ""
    """Folder of photographs (FOLDER/<class>/*), table of paths and labels (CSV, Parquet), zip or
    tar of either, address of one of these (s3://, hf://, https://, ...), tfds:NAME@DIR or
    drawn:COUNT. Empty: data/gear_images if it exists, else the drawn set."""
    labels: str = ""
    """Corrections that lie over the set: CSV with path,sha256,action,label,by,when, as
    `jaxgear review` and `clean` write it, or an export of Label Studio (.json). Pictures that it
    adds are trained on or validated on; the test split stays as it is."""
    unlabelled: str = ""
    """Pictures without labels to learn from, with or without class folders (whose names are not
    learned): a folder, a table of `predict --crops`, or what --data takes. Near-duplicates of
    pictures of the set are left out, and, with --backgrounds, pictures that look like backgrounds
    without gear."""
    added_share: Share = 0.0
    """With --labels: draw at least this share of an epoch's pictures from those that it adds."""
    out: str = "results/runs"
    """Folder for new run folders."""
    resume: str = ""
    """Run folder to continue with its own config; --epochs may differ. latest: the newest run of
    this experiment in --out, or a new one, so that a scheduler can repeat its command."""
    from_epoch: int = 0
    """With --resume: continue from this epoch, for example when the newest state is damaged."""
    allow_data_change: bool = False
    """With --resume: continue although pictures were added, removed or edited."""
    init_from: str = ""
    """Run or bundle to take initial weights from, wherever name and shape match."""
    on_bad: Literal["stop", "skip"] = "stop"
    """On unusable pictures: stop with a list, or train without them."""
    group_by: str = "near-duplicates"
    """What stays in one split: near-duplicates, each file, each folder, or pictures whose paths
    match a regular expression with the same text."""
    seed: Annotated[int, Range(0, LAST_SEED, high_too=True)] = 0
    """Seed of the split, the order, the initial weights and every augmentation."""
    epochs: Count = 20
    """Passes over the training pictures, or parts of passes (--epoch-share)."""
    epoch_share: Annotated[float, Range(1e-6, 1, high_too=True)] = 1.0
    """An epoch is this share of a pass, for large sets: validate and save more often. The batches
    are the same, one pass after another."""
    batch_size: Count = 48
    """Pictures in an optimizer step."""
    image_size: Size = 128
    """Pictures are letterboxed to a square of this many pixels."""
    microbatch: int = 0
    """Sum the gradient of a batch over parts of this many pictures, in the memory of one part."""
    stream: bool = False
    """Decode pictures batch by batch, even if all fit in memory. A set that would take more than
    half of the free memory streams anyway. The batches are the same to the bit."""
    shuffle_window: Annotated[int, Range(0)] = 0
    """For a prepared set on a file system that is slow to read at random: read 16 shards at a time
    in sequence, and shuffle within windows of this many pictures. It costs randomness: pictures
    that were prepared together are trained on near each other. 0: shuffle all."""
    hosts: int = 1
    """Train on this many processes, each with its devices; 0: ask Slurm, Open MPI or Kubernetes.
    All need the same --data and --out."""
    host_id: int = 0
    """With --hosts: the number of this process, from 0."""
    coordinator: str = ""
    """With --hosts: ADDRESS:PORT of host 0."""
    patience: Count = 10
    """Stop after this many epochs without a lower validation loss."""
    test: bool = True
    """Test the best epoch at the end. With --no-test the test split stays closed until
    --resume RUN --test."""
    backgrounds: str = ""
    """Paste objects on the photographs of this folder (half of them; the other half is for tests),
    or on `drawn` backgrounds. The model then also answers `none` for pictures without gear. Empty:
    paste nothing."""
    paste: Share = 0.6
    """With --backgrounds: probability that a training picture, or a view of it, is pasted."""

    track: str = ""
    """Show the run elsewhere too: tensorboard (in RUN/tensorboard), mlflow, or MODULE:FUNCTION, a
    function of your own; several with commas (jaxgear/tracking/find.py)."""
    profile: Annotated[int, Range(0)] = 0
    """Trace this many steps in RUN/profile, and print the five longest operations."""

    def expanded(self) -> "Config":
        """The config with `~` and variables in its paths replaced."""
        paths = {name: getattr(self, name) for name in PATHS if hasattr(self, name)}
        for name, path in paths.items():
            if not (name in ADDRESSES and is_address(path)):
                paths[name] = expanded(path)
        return dataclasses.replace(self, **paths)

    def check(self) -> None:
        """Raises UsageError for values that cannot work, before anything is written."""
        for name, value, reason in out_of_range(self):
            raise UsageError(f"{_flag(name)} {value}: {reason}")
        if (self.from_epoch or self.allow_data_change) and not self.resume:
            raise UsageError("--from-epoch and --allow-data-change go with --resume RUN")
        if self.microbatch < 0 or (self.microbatch and self.batch_size % self.microbatch):
            raise UsageError(
                f"--microbatch {self.microbatch}: must divide --batch-size {self.batch_size}"
            )
        if self.hosts < 0 or not 0 <= self.host_id < max(1, self.hosts):
            raise UsageError(
                f"--host-id {self.host_id}: must be at least 0 and below --hosts {self.hosts}"
            )
        if (self.hosts > 1) != bool(self.coordinator):
            raise UsageError("--coordinator ADDRESS:PORT goes with --hosts of 2 or more")


# Fields that a resumed run may change.
OF_HOSTS = ("hosts", "host_id", "coordinator")
# Paths: hashes tell whether their content is the same.
OF_PLACES = ("data", "labels", "unlabelled", "backgrounds", "out", "weights")
OF_RESUME = (
    *("resume", "from_epoch", "allow_data_change", "epochs", "stream"),
    *("test", "track", "profile"),
    *(*OF_HOSTS, *OF_PLACES),
)
C = TypeVar("C", bound=Config)


def stored_config(config: type[C], run: str) -> C:
    """The config that a run was started with."""
    stored = read_json(Path(run) / "config.json")
    try:
        for name in ("from_epoch", "allow_data_change", "profile", *OF_HOSTS):
            stored.pop(name, None)
        return dataclasses.replace(config(**stored), resume=run)
    except TypeError as error:
        raise UsageError(f"--resume {run}: not a run of this experiment ({error})") from error


def check_resumed(config: C, stored: C) -> C:
    """`config`, if it differs from `stored` only in the fields `OF_RESUME`."""
    changed = [
        f"{_flag(field.name)} (the run has {getattr(stored, field.name)})"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(stored, field.name)
        and field.name not in OF_RESUME
    ]
    if changed:
        raise UsageError(
            f"--resume {config.resume}: cannot change {', '.join(changed)}; a run keeps its "
            "config, so start a new run (--init-from starts it from these weights)"
        )
    return config


def out_of_range(item: Any) -> Iterator[tuple[str, Any, str]]:
    """Name and value of each number of a dataclass that is outside its range, and why."""
    for name, type_ in get_type_hints(type(item), include_extras=True).items():
        value = getattr(item, name)
        for range_ in _ranges(type_):
            if isinstance(value, numbers.Real) and (reason := range_.reason(value)):
                yield name, value, reason


def _ranges(type_: Any) -> list[Range]:
    """The ranges of a field's type; a plain float must be finite and not negative."""
    if get_origin(type_) is Annotated:
        return [item for item in type_.__metadata__ if isinstance(item, Range)]
    return [r for part in get_args(type_) for r in _ranges(part)] or (
        [Range(0)] if type_ is float else []
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
