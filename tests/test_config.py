"""What values a config may have: said in the types of its fields, a researcher's own among them."""

import dataclasses
import json
import math
from typing import Annotated

import pytest

from jaxgear.errors import UsageError
from jaxgear.experiment.config import Config, Count, Fraction, Positive, Range, Share
from jaxgear.experiment.flags import parse


@dataclasses.dataclass(frozen=True)
class Own(Config):
    """Of a researcher."""

    rate: Positive = 0.1
    best: Positive | None = None
    blur: float = 0.5
    keep: Share = 1.0
    drop: Fraction = 0.0
    heads: Count = 2
    angle: Annotated[float, Range(-90, 90, high_too=True)] = 0.0


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("rate", [0.0, -1.0], "must be above 0"),
        ("rate", [math.inf, math.nan], "must be finite"),
        ("best", [0.0], "must be above 0"),
        ("blur", [-0.1], "must be at least 0"),
        ("blur", [math.nan], "must be finite"),
        ("keep", [1.1, -0.1], "must be at least 0 and at most 1"),
        ("drop", [1.0], "must be at least 0 and below 1"),
        ("heads", [0], "must be at least 1"),
        ("angle", [91.0, -91.0], "must be at least -90 and at most 90"),
        ("seed", [-1, 2**32], "must be at least 0 and at most 4294967295"),
        ("image_size", [0, 2049], "must be at least 1 and at most 2048"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_flag_and_range(field, values, reason):
    for value in values:
        flag = "--" + field.replace("_", "-")
        with pytest.raises(UsageError) as error:
            Own(**{field: value}).check()
        assert str(error.value) == f"{flag} {value}: {reason}"


def test_the_ends_of_ranges_are_as_they_say():
    Own(rate=1e-9, best=2.0, blur=0.0, keep=0.0, drop=0.999, heads=1, angle=-90.0).check()
    Own(keep=1.0, angle=90.0, seed=2**32 - 1, image_size=2048).check()


def test_paths_of_a_config_made_in_python_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config(data="drawn:60", out="~/runs", backgrounds="$HOME/photos").expanded()
    assert (config.data, config.out) == ("drawn:60", f"{tmp_path}/runs")
    assert config.backgrounds == f"{tmp_path}/photos"
    config = Config(data="s3://set/a", unlabelled="https://new/b.zip").expanded()
    assert (config.data, config.unlabelled) == ("s3://set/a", "https://new/b.zip")


def test_the_latest_run_is_the_newest_of_this_experiment_that_is_whole(tmp_path):
    flags = ["--out", str(tmp_path), "--resume", "latest", "--seed", "3"]
    assert parse(Own, flags) == Own(out=str(tmp_path), seed=3)  # there is none: a new one
    names = ["20260101-000000", "20260102-000000-2", "20260102-000000-10", "20250101-000000-11"]
    for name in [f"test_config-{name}" for name in names] + ["scratch-20270101-000000"]:
        (tmp_path / name).mkdir()
        config = dataclasses.asdict(Own(out=str(tmp_path), seed=3, heads=5))
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "test_config-20270101-000000").mkdir()  # without a config
    newest = str(tmp_path / "test_config-20260102-000000-10")
    resumed = parse(Own, flags)
    assert (resumed.resume, resumed.heads) == (newest, 5)
    with pytest.raises(UsageError, match="cannot change --seed"):
        parse(Own, [*flags[:-1], "4"])
