"""What a study varies: values of config fields, and ranges to search.

A variant is a dict from a field to its value; fields that it lacks keep the experiment's own value.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config
from jaxgear.experiment.flags import parse

Variant = dict[str, Any]
# Fields that belong to the study.
TAKEN = ("seed", "out", "resume", "test", "hosts", "host_id", "coordinator")


@dataclasses.dataclass(frozen=True)
class Span:
    """A range of numbers to search, on a logarithmic scale if it spans a factor of 10."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.low > 0 and self.high >= 10 * self.low


Space = dict[str, list[Any] | Span]


def read_space(words: Sequence[str], config: type[Config], flags: Sequence[str]) -> Space:
    """The fields to vary, from words such as `peak_lr=0.001,0.01` or `peak_lr=0.001..0.1`.

    Args:
        config: the experiment's Config, which knows the types and valid values of its fields.
        flags: the flags of all trials.

    Raises:
        UsageError: a word is no field with values, the experiment has no such field, or a value is
            bad; the message names it.
    """
    space: Space = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or not text.strip():
            raise UsageError(f"--vary {word}: give FIELD=VALUE,VALUE,... or FIELD=LOW..HIGH")
        if name in TAKEN:
            raise UsageError(f"--vary {word}: the study itself chooses {name}")
        if name in space:
            raise UsageError(f"--vary {word}: {name} is named twice")
        low, dots, high = text.partition("..")
        values = [_value(config, flags, word, name, part) for part in
                  ((low, high) if dots else text.split(","))]  # fmt: skip
        if not dots:
            space[name] = list(dict.fromkeys(values))
        elif any(isinstance(v, bool | str) for v in values) or values[0] >= values[1]:
            raise UsageError(f"--vary {word}: LOW..HIGH are two numbers, the lower one first")
        else:
            space[name] = Span(*values)
    return space


def grid(space: Space) -> list[Variant]:
    """All combinations of values; the last field changes fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def is_search(space: Mapping[str, Any]) -> bool:
    """Whether a field has a range, which a grid cannot cover."""
    return any(isinstance(values, Span) for values in space.values())


def check_variants(variants: Sequence[Variant], config: type[Config], flags: Sequence[str]) -> None:
    """Raises UsageError for flags of all trials, or for a variant, that cannot work."""
    for word in flags:
        name = word.partition("=")[0].lstrip("-").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and name in TAKEN:
            raise UsageError(f"{word}: the study itself chooses {name}")
    parse(config, flags)
    for variant in variants:
        if taken := [name for name in variant if name in TAKEN]:
            raise UsageError(f"variant {describe(variant)}: the study itself chooses {taken[0]}")
        try:
            parse(config, [*flags, *as_flags(variant)])
        except UsageError as error:
            raise UsageError(f"variant {describe(variant)}: {error}") from error


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """The flags that set these fields."""
    flags = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    return flags


def describe(variant: Variant) -> str:
    """A variant in words, for tables and plots."""
    words = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in variant.items()
    )
    return ", ".join(words) or "as the experiment is"


def _value(config: type[Config], flags: Sequence[str], word: str, name: str, text: str) -> Any:
    """A value of a field, of the field's type."""
    text = text.strip()
    bare = {"true": True, "false": False}.get(text.lower(), text)
    is_bool = any(field.name == name and field.type is bool for field in dataclasses.fields(config))
    try:
        return getattr(parse(config, [*flags, *as_flags({name: bare if is_bool else text})]), name)
    except UsageError as error:
        raise UsageError(f"--vary {word}: {error}") from error
