"""Compares runs: groups them by method, and gives the figures of each group and their differences.

A group is the runs that differ in the seed alone: same experiment file, same config otherwise. Its
figures are mean and standard deviation over its runs. The seed also decides the split, so the
spread covers other images as well as other initial weights.
"""

import collections
import dataclasses
import difflib
import json
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgear.evaluation.comparison import differences
from jaxgear.evaluation.comparison.differences import Difference, Spread, difference, spread
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.metrics import METRICS
from jaxgear.evaluation.own_pictures import trained_on_test, warnings_of

# Config keys that are no part of the method.
NOT_METHOD = ("seed", "out", "resume", "test", "track", "profile")
_TESTED = tuple(metric for metric in METRICS if metric.in_runs)
# Key -> title of each figure of a run.
MEASURES = {
    "best_epoch": "best epoch",
    "val_loss": "val loss",
    "val_accuracy": "val accuracy",
    **{m.in_runs: m.in_runs.replace("_", " ").replace("macro f", "macro-F") for m in _TESTED},
    "seconds": "seconds",
    "flops": "FLOPs",
}
Figures = dict[tuple[str, ...], dict[str, Any]]  # of each run, by the images that it was tested on
# The measures whose difference between groups is computed.
PAIRED = tuple(name for name in MEASURES if name not in ("best_epoch", "seconds", "flops"))


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one method."""

    label: str  # A, B, ...
    runs: tuple[FinishedRun, ...]

    @property
    def source(self) -> str:
        """The experiment file of all its runs."""
        return self.runs[0].source

    def spread(self, measure: str) -> Spread | None:
        """Mean and spread of a measure over the runs that have it; None if no run has it."""
        values = [figures(run)[measure] for run in self.runs]
        return spread([value for value in values if value is not None])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Groups of runs, ordered by their first run, and how they differ."""

    groups: tuple[Group, ...]
    differing: dict[str, dict[str, Any]]  # config key -> values by label
    sources: dict[str, tuple[str, ...]]  # by label: lines that differ from the first group
    pairs: dict[str, dict[str, Difference]]  # by label: differences to the first, on equal images
    best_by: str  # the measure that decides which group is best
    probability_best: dict[
        str, float
    ]  # by label; empty: fewer than two tests that all groups share
    warnings: tuple[str, ...]


def figures(run: FinishedRun) -> dict[str, float | int | None]:
    """The `MEASURES` of one run: its best epoch, its test, and what its training took."""
    test = run.test or {}
    return {
        "best_epoch": run.best.epoch,
        "val_loss": run.best.val_loss,
        "val_accuracy": run.best.val_accuracy,
        **{metric.in_runs: test.get(metric.name) for metric in _TESTED},
        "seconds": sum(row.seconds for row in run.rows),
        "flops": run.flops,
    }


def compare(runs: Sequence[FinishedRun], warnings: Sequence[str] = ()) -> Comparison:
    """Groups runs and compares the groups; `warnings` come before its own."""
    members: dict[str, list[FinishedRun]] = {}
    for run in runs:
        members.setdefault(_method(run), []).append(run)
    groups = tuple(Group(_label(index), tuple(own)) for index, own in enumerate(members.values()))
    first, *others = groups
    by_test = {group.label: _by_test(group) for group in groups}
    best_by = "test_accuracy" if all(run.test for run in runs) else "val_accuracy"
    configs = {group.label: group.runs[0].config for group in groups}
    keys = [key for config in configs.values() for key in config if key not in NOT_METHOD]
    values = {
        key: {label: config[key] for label, config in configs.items() if key in config}
        for key in dict.fromkeys(keys)
    }
    return Comparison(
        groups=groups,
        differing={
            key: by_label
            for key, by_label in values.items()
            if len(by_label) < len(groups) or len(set(map(json.dumps, by_label.values()))) > 1
        },
        sources={g.label: _changed_lines(first, g) for g in others if first.source != g.source},
        pairs={
            group.label: _pairs(by_test[first.label], by_test[group.label], len(others))
            for group in others
        },
        best_by=best_by,
        probability_best=_probability_best(by_test, best_by),
        warnings=(*warnings, *_warnings(groups)),
    )


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """A comparison as it is written to JSON."""
    plain = lambda value: None if value is None else dataclasses.asdict(value)  # noqa: E731
    return {
        "groups": [
            {
                "group": group.label,
                **{name: plain(group.spread(name)) for name in MEASURES},
                "runs": [
                    {
                        "run": str(run.path),
                        "seed": run.config.get("seed"),
                        **figures(run),
                        "test_trained_on": trained_on_test(run),
                    }
                    for run in group.runs
                ],
            }
            for group in comparison.groups
        ],
        "differing_config": comparison.differing,
        "differing_source": {label: list(lines) for label, lines in comparison.sources.items()},
        "difference_to_first": {
            label: {name: plain(difference) for name, difference in pairs.items()}
            for label, pairs in comparison.pairs.items()
        },
        "best_by": comparison.best_by,
        "probability_best": comparison.probability_best,
        "warnings": list(comparison.warnings),
    }


def _method(run: FinishedRun) -> str:
    config = {key: value for key, value in run.config.items() if key not in NOT_METHOD}
    return json.dumps([config, run.source], sort_keys=True)


def _label(index: int) -> str:
    """A to Z, then AA, AB, ..."""
    letters = string.ascii_uppercase
    return (_label(index // 26 - 1) if index >= 26 else "") + letters[index % 26]


def _changed_lines(first: Group, group: Group) -> tuple[str, ...]:
    """The lines of a diff without headers and context: `-` removed, `+` added."""
    lines = difflib.unified_diff(first.source.splitlines(), group.source.splitlines(), n=0)
    return tuple(line for line in list(lines)[2:] if line[:1] in "+-")


def _tested_on(run: FinishedRun) -> tuple[str, ...]:
    return tuple(sorted(run.split("test").sha256))


def _by_test(group: Group) -> Figures:
    """The figures of a group's runs by seed and test images, which may be those of all seeds."""
    return {(str(run.config.get("seed")), *_tested_on(run)): figures(run) for run in group.runs}


def _pairs(baseline: Figures, own: Figures, comparisons: int) -> dict[str, Difference]:
    """Differences to `baseline` between runs with the same seed and test images.

    Pairing takes the split, which is most of the spread, out of the comparison.
    """
    shared = [(baseline[key], own[key]) for key in baseline if key in own]
    by_measure = {}
    for name in PAIRED:
        values = [b[name] - a[name] for a, b in shared if None not in (a[name], b[name])]
        if values:
            by_measure[name] = difference(values, comparisons)
    return by_measure


def _probability_best(by_test: dict[str, Figures], measure: str) -> dict[str, float]:
    """`probability_best` of each group over the tests that all share; {} for fewer than two."""
    shared = set.intersection(*(set(own) for own in by_test.values()))
    if len(shared) < 2 or len(by_test) < 2:
        return {}
    values = [[own[key][measure] for key in sorted(shared)] for own in by_test.values()]
    return dict(zip(by_test, differences.probability_best(np.array(values)).tolist(), strict=True))


def _relabelled_tests(runs: Sequence[FinishedRun]) -> list[str]:
    """Paths of test pictures whose label is not the same in all runs that were tested on them."""
    names: dict[str, str] = {}
    changed = {}
    for run in runs:
        for picture in run.split("test"):
            if names.setdefault(picture.sha256, picture.name) != picture.name:
                changed[picture.sha256] = picture.path
    return sorted(changed.values())


def _warnings(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    warnings = [
        f"{run.path}: not tested yet (no test.json); continue with --resume {run.path} --test"
        for run in runs
        if run.test is None and run.config.get("test", True)
    ]
    warnings += [line for run in runs for line in warnings_of(run, trained_on_test(run))]
    tested_on_same = len({tuple(sorted(map(_tested_on, group.runs))) for group in groups}) == 1
    if len({run.fingerprint for run in runs}) > 1:
        if not tested_on_same:
            warnings.append(
                "the runs had different pictures (fingerprints differ): compare them loosely"
            )
        elif changed := _relabelled_tests(runs):
            warnings.append(
                f"{len(changed)} test pictures have another label in some runs, for example "
                f"{changed[0]}: `jaxgear evaluate RUN FOLDER --labels FILE` tests a run on "
                "corrected labels"
            )
        else:
            warnings.append(
                "the runs were trained on different pictures or labels (fingerprints differ), and "
                "tested on the same"
            )
    elif not tested_on_same:
        warnings.append(
            "the groups were tested on different pictures, as the seed decides the split: compare "
            "them loosely, or train each with the same seeds"
        )
    for group in groups:
        seeds = collections.Counter(run.config.get("seed") for run in group.runs)
        if again := [str(seed) for seed, count in seeds.items() if count > 1]:
            warnings.append(
                f"{group.label} has several runs of seed {', '.join(again)}: repeats of one run, "
                "so its spread is too small"
            )
    return warnings
