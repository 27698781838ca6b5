"""Flags that all experiments have, and what a resumed run may be told anew.

A config is a frozen dataclass of scalars; `cli.parse` makes flags of its fields.
"""

import dataclasses
from pathlib import Path
from typing import Literal, TypeVar

from jaxgear.bundle import MAX_SIZE
from jaxgear.errors import UsageError
from jaxgear.training.runs import read_json

LAST_SEED = 2**32 - 1  # of JAX's keys and numpy's generators alike
# Of any experiment that has such a field.
PARTS = ("paste",)
BELOW_ONE = ("warmup", "label_smoothing", "dropout")
POSITIVE = ("peak_lr", "finetune_lr")
LEAST_WIDTH = 1 / 32  # of networks whose narrowest layer has 32 channels


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags that all experiments have. Every field of an experiment's Config is a scalar."""

    data: str = ""
    """Folder of photographs (FOLDER/<class>/*), tfds:NAME@DIR or drawn:COUNT. Empty:
    data/gear_images if it is there, else the drawn set."""
    out: str = "results/runs"
    """Folder in which the run folder is made."""
    resume: str = ""
    """Run folder to continue; its config holds, unless --epochs asks for more."""
    from_epoch: int = 0
    """With --resume: go on from this epoch, not from the newest state (where that is damaged)."""
    allow_data_change: bool = False
    """With --resume: go on although pictures were added, removed or edited."""
    init_from: str = ""
    """Run or bundle whose weights to start from, as far as they fit."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable pictures: stop with a list, or train without them."""
    group_by: str = "near-duplicates"
    """What stays on one side of the split: near-duplicates, each file, each folder, or pictures in
    whose paths a regular expression finds the same."""
    seed: int = 0
    """Decides the split, the order, the first weights and every augmentation."""
    epochs: int = 20
    batch_size: int = 48
    image_size: int = 128
    """Pictures are letterboxed to a square of this many pixels."""
    microbatch: int = 0
    """Sum the gradient of a batch over parts of so many pictures, in the memory of one part."""
    stream: bool = False
    """Decode pictures when their turn comes, also where all would fit in memory."""
    hosts: int = 1
    """Train on so many processes, each with its devices; 0: as Slurm, Open MPI or Kubernetes say.
    All see the same --data and --out."""
    host_id: int = 0
    """With --hosts: which of them this process is."""
    coordinator: str = ""
    """With --hosts: ADDRESS:PORT of host 0."""
    patience: int = 10
    """Stop after this many epochs without a lower validation loss."""
    backgrounds: str = ""
    """Paste objects on other backgrounds: on photographs of this folder (the half of them that is
    not kept for tests), or on `drawn` ones alone. Empty: do not."""
    paste: float = 0.6
    """With --backgrounds: probability of a training picture, or view of one, to be pasted."""

    def check(self) -> None:
        """Raises UsageError for values that cannot work, before anything is written."""
        for name in ("epochs", "batch_size", "image_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: must be at least 1")
        if self.image_size > MAX_SIZE:
            raise UsageError(f"--image-size {self.image_size}: at most {MAX_SIZE}")
        if (self.from_epoch or self.allow_data_change) and not self.resume:
            raise UsageError("--from-epoch and --allow-data-change go with --resume RUN")
        if self.microbatch < 0 or (self.microbatch and self.batch_size % self.microbatch):
            raise UsageError(
                f"--microbatch {self.microbatch}: --batch-size {self.batch_size} is no multiple"
            )
        if self.hosts < 0 or not 0 <= self.host_id < max(1, self.hosts):
            raise UsageError(f"--host-id {self.host_id}: from 0 to below --hosts {self.hosts}")
        if (self.hosts > 1) != bool(self.coordinator):
            raise UsageError("--coordinator ADDRESS:PORT goes with --hosts of 2 or more")
        for name in PARTS:
            if getattr(self, name, 0) > 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: a part, at most 1")
        for name in BELOW_ONE:
            if getattr(self, name, 0) >= 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: a part, below 1")
        for name in POSITIVE:
            value = getattr(self, name, None)
            if value is not None and not value > 0:
                raise UsageError(f"{_flag(name)} {value}: must be above 0")
        if getattr(self, "width", 1) < LEAST_WIDTH:
            raise UsageError(f"--width {self.width}: leaves no channels, at least {LEAST_WIDTH}")
        if not 0 <= self.seed <= LAST_SEED:
            raise UsageError(f"--seed {self.seed}: from 0 to {LAST_SEED}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not 0 <= value < float("inf"):
                raise UsageError(f"{_flag(field.name)} {value}: must be finite and not negative")


# What a resumed run may be told anew.
OF_HOSTS = ("hosts", "host_id", "coordinator")
# Where things lie: hashes tell whether they are the same.
OF_PLACES = ("data", "backgrounds", "out", "weights")
OF_RESUME = (
    *("resume", "from_epoch", "allow_data_change", "epochs", "stream"),
    *(*OF_HOSTS, *OF_PLACES),
)
C = TypeVar("C", bound=Config)


def stored_config(config: type[C], run: str) -> C:
    """The config that a run was started with."""
    stored = read_json(Path(run) / "config.json")
    try:
        for name in ("from_epoch", "allow_data_change", *OF_HOSTS):
            stored.pop(name, None)
        return dataclasses.replace(config(**stored), resume=run)
    except TypeError as error:
        raise UsageError(f"--resume {run}: not a run of this experiment ({error})") from error


def check_resumed(config: C, stored: C) -> C:
    """`config` may differ from `stored` in what is `OF_RESUME` alone."""
    changed = [
        f"{_flag(field.name)} (the run has {getattr(stored, field.name)})"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(stored, field.name)
        and field.name not in OF_RESUME
    ]
    if changed:
        raise UsageError(
            f"--resume {config.resume}: cannot change {', '.join(changed)}; a run keeps its "
            "config, start a new one (--init-from takes the weights along)"
        )
    return config


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
