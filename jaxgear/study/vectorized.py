"""Trains several runs of an experiment as one program, in a process that `Vectorized` starts.

Each run has its folder, history, checkpoints and bundle, as if it were trained alone.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence

import jax

from jaxgear import experiment
from jaxgear.errors import DivergedError, GearError
from jaxgear.experiment.config import Config
from jaxgear.experiment.flags import parse
from jaxgear.experiment.recipe import Make
from jaxgear.experiment.run import Experiment
from jaxgear.machine import devices
from jaxgear.machine.huge_pages import restart_with_huge_pages
from jaxgear.machine.process import set_up_process
from jaxgear.machine.signals import deferred_signals
from jaxgear.program import flops
from jaxgear.study.executors import load
from jaxgear.training.loop import Stopped
from jaxgear.training.progress import Progress
from jaxgear.training.vectorized import Lane, Rounds, grouped


def main() -> None:
    """Trains the runs that the command line names: a module, and the flags of each run as JSON.

    Raises:
        GearError: the runs cannot be trained together, or one cannot be trained at all.
    """
    set_up_process()
    restart_with_huge_pages()
    name, flags = sys.argv[1:]
    module, _ = load(name)
    configs = [parse(module.Config, of_run) for of_run in json.loads(flags)]
    try:
        train(configs, module.recipe)
    except RuntimeError as error:  # jax.errors.JaxRuntimeError
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise GearError(
            f"{len(configs)} runs did not fit in the device's memory; try a smaller --vectorize"
        ) from error


def train(configs: Sequence[Config], make: Make) -> None:
    """Trains a run for each config, in as few programs as their steps allow.

    A run ends after its patience, as in scratch.py. One that diverges gets no bundle, and the
    others go on. On a signal all save their states.
    """
    alone = devices.mesh_of(jax.devices()[:1])
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(experiment.start(config, make, alone)) for config in configs]
        lanes = {_lane(run): run for run in runs}
        groups = grouped([lane for lane in lanes if lane.first <= lane.last])
        print(f"{len(runs)} runs, {len(groups)} programs", flush=True)
        for group in groups:
            _train_group([lanes[lane] for lane in group], group)
        for lane, run in lanes.items():
            if lane.first > lane.last:  # it was trained before
                run.finish()


def _lane(run: Experiment) -> Lane:
    """The run from its newest state on; without an epoch if its patience is exhausted."""
    training, state = run.training, run.run.latest(run.state)
    return Lane(
        name=run.path.parent.name,
        state=devices.local(state),
        train=training.train,
        val=training.val,
        first=len(run.rows) + 1,
        last=0 if run.patience_exhausted else run.recipe.epochs,
        schedule=training.rate.recorded,
        step_options=training.step_options,
        scales=training.scales,
    )


def _flops(lane: Lane) -> int | list[int]:
    """FLOPs of a step, or those of each epoch, as `loop.epochs` counts them."""
    return [flops(lane.step(scale)) for scale in lane.scales] or flops(lane.step())


def _train_group(runs: Sequence[Experiment], lanes: Sequence[Lane]) -> None:
    """Trains the runs of one program and saves their bundles."""
    complete, stopped = [], None
    with deferred_signals() as signals:
        rounds = Rounds(lanes, signals, Progress())
        for i, run in enumerate(runs):
            run.run.note_flops(_flops(lanes[i]))
            own = lambda *_, i=i, **options: rounds.epochs(i)  # noqa: E731
            run.training = dataclasses.replace(run.training, run_epochs=own)
        going = {run: run.epochs() for run in runs}
        while going:
            for run, epochs in list(going.items()):
                try:
                    ended = next(epochs, None) is None or run.patience_exhausted
                except DivergedError as error:
                    print(f"{run.path}: {error}", flush=True)
                except Stopped as signal:
                    stopped = signal
                else:
                    if not ended:
                        continue
                    epochs.close()
                    complete.append(run)
                del going[run]
        if stopped is not None:
            raise stopped
    for run in complete:
        run.finish()
