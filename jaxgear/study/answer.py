"""Which variant is best, and is that more than luck? From the finished trials of a study."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgear import text
from jaxgear.evaluation.comparison import Difference, Spread, difference, probability_best, spread
from jaxgear.files import read_json
from jaxgear.study.executors import rows_of, run_of
from jaxgear.study.trials import Trial
from jaxgear.study.variants import Variant, describe
from jaxgear.training import history
from jaxgear.training.history import Row

RunsOf = Callable[[int], Path]  # trial number -> folder of the trial


@dataclasses.dataclass(frozen=True)
class Scored:
    """A variant and its figures on validation, over its complete trials."""

    variant: Variant
    trials: tuple[Trial, ...]  # complete, by seed
    accuracy: Spread
    loss: Spread
    seconds: Spread
    # Until validation accuracy reached the target; None: a run never did, or has no figure.
    seconds_to_target: Spread | None
    flops_to_target: Spread | None
    ended: dict[str, int]  # trials that ended otherwise: state -> count
    difference: Difference | None = None  # of accuracy to the chosen variant, by seed
    probability_best: float | None = None  # None: not all seeds are complete

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: mean accuracy, then the lower mean loss."""
        return self.accuracy.mean, -self.loss.mean


@dataclasses.dataclass(frozen=True)
class Answer:
    """The outcome of a study. Variants without a complete trial are only counted."""

    scored: tuple[Scored, ...]  # best first
    chosen: Scored | None  # the best of those with all seeds; None: there is none
    tried: int  # variants
    seeds: int
    target: float | None  # validation accuracy
    failed: dict[str, dict[str, int]]  # variants without a complete trial: state -> count
    test: Spread | None = None  # test accuracy of the chosen variant


def answer(
    trials: Sequence[Trial], folder_of: RunsOf, seeds: int, target: float | None = None
) -> Answer:
    """Ranks the variants on validation, over the first `seeds`, and compares each with the best."""
    by_variant: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.seed < seeds:
            # Not by description: a search may try rates that differ in the fifth digit.
            by_variant.setdefault(json.dumps(trial.variant, sort_keys=True), []).append(trial)
    scored, failed = [], {}
    for own in by_variant.values():
        done = sorted((t for t in own if t.state == "complete"), key=lambda trial: trial.seed)
        ended = dict(Counter(trial.state for trial in own if trial.state != "complete"))
        if done:
            scored.append(_scored(done, ended, [folder_of(t.number) for t in done], target))
        else:
            failed[describe(own[0].variant)] = ended
    scored.sort(key=lambda one: one.rank, reverse=True)
    whole = [one for one in scored if len(one.trials) >= seeds]
    chosen = whole[0] if whole else None
    if chosen is not None:
        scored = _compared(scored, whole, chosen)
        chosen = next(one for one in scored if one.variant == chosen.variant)
    return Answer(tuple(scored), chosen, len(by_variant), seeds, target, failed)


def lines(answer: Answer) -> list[str]:
    """The answer as a table for people."""
    table = [["", "seeds", "val accuracy", "val loss", "seconds"]]
    if answer.target is not None:
        table[0] += [f"{unit} to {answer.target:g}" for unit in ("seconds", "FLOPs")]
    table[0] += ["best?", "difference to the best, 95 % interval"]
    for one in answer.scored:
        row = [describe(one.variant), str(len(one.trials)), str(one.accuracy), str(one.loss)]
        row.append(f"{one.seconds.mean:.1f}")
        if answer.target is not None:
            seconds, flops = one.seconds_to_target, one.flops_to_target
            row.append("-" if seconds is None else f"{seconds:.1f}")
            row.append("-" if flops is None else f"{flops:.3g}")
        row.append("" if one.probability_best is None else f"{one.probability_best:.2f}")
        table.append([*row, _difference(one, answer.chosen)])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    for name, states in answer.failed.items():
        text.append(f"{name}: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    if answer.chosen is None:
        return [*text, f"no variant is complete with all {answer.seeds} seeds"]
    text.append(
        f"chosen by validation accuracy, of {_count(answer.tried, 'variant')} tried: "
        f"{describe(answer.chosen.variant)}"
    )
    if answer.test is not None:
        text.append(f"its test accuracy: {answer.test} ({_count(answer.test.n, 'seed')})")
    return text


def to_dict(answer: Answer) -> dict[str, Any]:
    """The answer as it is written to JSON."""
    return {
        "tried": answer.tried,
        "seeds": answer.seeds,
        "chosen": answer.chosen and answer.chosen.variant,
        "chosen_by": "val_accuracy",
        "test_accuracy": _plain(answer.test),
        "target": answer.target,
        "variants": [
            {
                "variant": one.variant,
                "val_accuracy": dataclasses.asdict(one.accuracy),
                "val_loss": dataclasses.asdict(one.loss),
                "seconds": dataclasses.asdict(one.seconds),
                "seconds_to_target": _plain(one.seconds_to_target),
                "flops_to_target": _plain(one.flops_to_target),
                "ended": one.ended,
                "difference_to_chosen": _plain(one.difference),
                "probability_best": one.probability_best,
            }
            for one in answer.scored
        ],
        "failed": answer.failed,
    }


def to_csv(trials: Sequence[Trial], folder_of: RunsOf) -> str:
    """A line a trial: `trial,seed,<a column each varied field>,val_accuracy,val_loss,state,run`."""
    fields = list(dict.fromkeys(name for trial in trials for name in trial.variant))
    rows: list[list[Any]] = [["trial", "seed", *fields, "val_accuracy", "val_loss", "state", "run"]]
    for t in trials:
        values = [t.variant.get(name, "") for name in fields]
        run = run_of(folder_of(t.number)) or ""
        rows.append([t.number, t.seed, *values, t.val_accuracy, t.val_loss, t.state, run])
    return text.to_csv(rows)


def _plain(spread: Spread | None) -> dict[str, Any] | None:
    return spread and dataclasses.asdict(spread)


def _scored(
    done: list[Trial], ended: dict[str, int], folders: list[Path], target: float | None
) -> Scored:
    histories = [rows_of(folder) for folder in folders]
    reached = [_until(rows, target) for rows in histories]
    flops = [
        rows and history.flops(of_step, rows)
        for rows, of_step in zip(reached, map(_flops_per_step, folders), strict=True)
    ]
    return Scored(
        variant=done[0].variant,
        trials=tuple(done),
        accuracy=spread([trial.val_accuracy for trial in done]),
        loss=spread([trial.val_loss for trial in done]),
        seconds=spread([_seconds(rows) for rows in histories]),
        seconds_to_target=None if None in reached else spread(list(map(_seconds, reached))),
        flops_to_target=None if None in flops else spread(flops),
        ended=ended,
    )


def _compared(scored: list[Scored], whole: list[Scored], chosen: Scored) -> list[Scored]:
    """The variants with their differences to the chosen one, and their probability to be best.

    The best was chosen after the fact, so each pair of variants with several seeds counts as a
    comparison.
    """
    compared = sum(len(one.trials) > 1 for one in scored)
    pairs = max(1, compared * (compared - 1) // 2)
    values = np.array([[trial.val_accuracy for trial in one.trials] for one in whole])
    shares = dict(zip(map(id, whole), probability_best(values).tolist(), strict=True))
    base = {trial.seed: trial.val_accuracy for trial in chosen.trials}
    result = []
    for one in scored:
        own = [t.val_accuracy - base[t.seed] for t in one.trials if t.seed in base]
        result.append(
            dataclasses.replace(
                one,
                difference=None if one is chosen else difference(own, pairs),
                probability_best=shares.get(id(one)),
            )
        )
    return result


def _until(rows: list[Row], target: float | None) -> list[Row] | None:
    """The epochs until validation accuracy reached `target`; None: it never did."""
    for count, row in enumerate(rows, 1):
        whole = row.size == rows[-1].size  # with progressive resizing, what the test has
        if target is not None and whole and row.val_accuracy >= target:
            return rows[:count]
    return None


def _seconds(rows: list[Row]) -> float:
    return sum(row.seconds for row in rows)


def _flops_per_step(folder: Path) -> int | list[int] | None:
    """FLOPs of a step of a trial, or those of each epoch; None: a run of older code."""
    run = run_of(folder)
    if run is None or not (run / "environment.json").exists():
        return None
    return read_json(run / "environment.json").get("flops_per_step")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _difference(one: Scored, chosen: Scored | None) -> str:
    if chosen is not None and one.variant == chosen.variant:
        return "chosen"
    if one.difference is None or one.difference.low is None:
        return "seen on too few seeds"
    gap = one.difference
    return f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}): {gap.verdict()}"
