"""A study: plans trials, runs them until none is left, chooses a variant and tests it.

All variants see the same splits, seed by seed. Validation chooses; the test split is opened once,
for the chosen variant. Any number of processes may work on one study at the same time, and one that
was killed goes on with the same command.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxgear.errors import CheckpointError, UsageError
from jaxgear.evaluation.comparison import spread
from jaxgear.files import read_json, write_bytes, write_json, write_text
from jaxgear.study.answer import Answer, answer, lines, to_csv, to_dict
from jaxgear.study.executors import Executor, Job, rows_of, run_of
from jaxgear.study.processes import LOG
from jaxgear.study.trials import Trials
from jaxgear.study.variants import Space, Variant, check_variants, describe, grid, is_search
from jaxgear.training import history

FINALISTS = 3  # variants of a search that are trained with all seeds
POLL = 1.0  # seconds between looks at trials that other processes train


def study(
    executors: Executor | Sequence[Executor],
    out: str | Path,
    vary: Space | Sequence[Variant] = (),
    *,
    seeds: int = 5,
    budget: int = 0,
    sampler: str = "tpe",
    pruner: Any = None,
    storage: str = "",
    target: float | None = None,
    say: Callable[[str], None] = print,
) -> Answer:
    """Trains variants with seeds 0 to `seeds` - 1 and says which is best.

    Writes `study.csv` after every trial, and at the end `study.json` and `study.png`, in `out`.

        study(Function(main, Config(epochs=5)), "lr", {"peak_lr": [0.01, 0.02]}, seeds=3)

    Args:
        executors: how to train a trial; several train as many trials at a time.
        vary: values of fields, whose combinations are the variants, or the variants themselves. A
            range (`Span`) makes it a search.
        budget: of a search: variants to try with seed 0. The best `FINALISTS` get all seeds.
        sampler: of a search: "tpe" or "random", of Optuna.
        pruner: Optuna's; it ends poor trials early.
        storage: as `Trials`.
        target: validation accuracy; the answer says how long each variant took to reach it.

    Raises:
        UsageError: a variant cannot work, or `out` holds something else.
        GearError: an error that every trial would meet.
    """
    executors = [executors] if callable(executors) else list(executors)
    first = executors[0]
    search = isinstance(vary, dict) and is_search(vary)
    if search != bool(budget):
        raise UsageError("--budget N: goes with a range, FIELD=LOW..HIGH, and only with one")
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1")
    variants = [] if search else grid(vary) if isinstance(vary, dict) else list(vary) or [{}]
    check_variants(variants, first.config, first.flags)
    about = {
        "experiment": first.name,
        "flags": list(first.flags),
        "experiment file": hashlib.sha256(first.source.encode()).hexdigest(),
    }
    trials = Trials(Path(out), about, storage, pruner)

    def progress(line: str) -> None:
        say(line)
        _write_table(trials)

    if search:
        _work(trials, executors, progress, lambda: trials.propose(vary, sampler, budget))
        found = answer(trials.all(), trials.folder_of, seeds=1)
        variants = [one.variant for one in found.scored[:FINALISTS]]
    trials.plan(variants, range(seeds))
    _work(trials, executors, progress)
    found = answer(trials.all(), trials.folder_of, seeds, target)
    if found.chosen is not None:
        found = _tested(trials, first, found)
    _write(trials, found)
    for line in lines(found):
        say(line)
    return found


def _work(
    trials: Trials,
    executors: Sequence[Executor],
    progress: Callable[[str], None],
    propose: Callable[[], bool] = lambda: False,
) -> None:
    """Trains trials until all are finished, one at a time on each executor."""
    errors: list[BaseException] = []

    def worker(executor: Executor) -> None:
        try:
            while not errors:
                if _train(trials, executor, progress):
                    continue
                if sum(propose() for _ in range(executor.at_once)):
                    continue
                if all(trial.state not in ("waiting", "running") for trial in trials.all()):
                    return
                time.sleep(POLL)  # other processes train the rest, and may be killed
        except BaseException as error:
            errors.append(error)

    if len(executors) == 1:
        worker(executors[0])
    else:
        _in_threads(worker, executors, errors)
    if errors:
        raise errors[0]


def _in_threads(
    worker: Callable[[Executor], None], executors: Sequence[Executor], errors: list[BaseException]
) -> None:
    """Runs `worker` for each executor at the same time; a signal stops their processes."""
    threads = [threading.Thread(target=worker, args=(one,)) for one in executors]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:
        errors.insert(0, error)
        for executor in executors:
            executor.stop()
        for thread in threads:
            thread.join()


def _train(trials: Trials, executor: Executor, progress: Callable[[str], None]) -> bool:
    """Trains trials, or continues them, and records how they ended; False: there are none."""
    with contextlib.ExitStack() as stack:
        taken, jobs, start = [], [], time.monotonic()
        while len(jobs) < executor.at_once and (one := stack.enter_context(trials.take())):
            trial, folder, lock = one
            values = {**trial.variant, "seed": trial.seed, "out": str(folder), "test": False}
            if (run := run_of(folder)) is not None:
                values = {"resume": str(run)}
            watch = functools.partial(trials.report, trial.number)
            taken.append(trial)
            jobs.append(Job(values, folder, lock, watch))
        states = executor(jobs) if jobs else []
        for trial, job, state in zip(taken, jobs, states, strict=True):
            finite = [row for row in rows_of(job.folder) if math.isfinite(row.val_loss)]
            best = history.best(finite) if finite else None
            trials.finish(trial.number, state, best)
            count = len(trials.all())
            accuracy = "" if best is None else f"  val accuracy {best.val_accuracy:.4f}"
            progress(
                f"trial {trial.number + 1} of {count}  {describe(trial.variant)}  "
                f"seed {trial.seed}{accuracy}  {state}  {time.monotonic() - start:.0f} s"
            )
    return bool(jobs)


def _tested(trials: Trials, executor: Executor, found: Answer) -> Answer:
    """The answer with the test accuracy of the chosen variant; opens the test split.

    Raises:
        CheckpointError: a run of it cannot be tested.
    """
    accuracies = []
    for trial in found.chosen.trials:
        folder = trials.folder_of(trial.number)
        run = run_of(folder)
        with trials.alone():
            if not (run / "test.json").exists():
                (state,) = executor([Job({"resume": str(run), "test": True}, folder)])
                if state != "complete":
                    raise CheckpointError(f"{run}: cannot be tested ({state}; see {folder / LOG})")
        accuracies.append(read_json(run / "test.json")["accuracy"])
    return dataclasses.replace(found, test=spread(accuracies))


def _write_table(trials: Trials) -> None:
    with trials.alone():
        write_text(trials.folder / "study.csv", to_csv(trials.all(), trials.folder_of))


def _write(trials: Trials, found: Answer) -> None:
    from jaxgear.evaluation.plots import figures as plots
    from jaxgear.evaluation.plots import studies

    _write_table(trials)
    write_json(trials.folder / "study.json", to_dict(found))
    figure = studies.accuracies(
        [one.variant for one in found.scored], [one.accuracy for one in found.scored]
    )
    write_bytes(trials.folder / "study.png", plots.png(figure))
