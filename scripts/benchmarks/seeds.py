"""The task `seeds` of scripts/bench.py: several seeds as one program."""

import argparse
import contextlib
import statistics
import sys
import time
from typing import Any


def seeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Training pictures a second of `--runs` seeds as one program, and one by one, in turn.

    Whole epochs, validation included. `flops` is the work of a step of all seeds, in those of one.
    """
    import jax
    import numpy as np

    from experiments import scratch
    from jaxgear.experiment import assembly
    from jaxgear.machine.signals import Signals
    from jaxgear.program import flops
    from jaxgear.training.progress import Progress
    from jaxgear.training.vectorized import Lane, Rounds
    from jaxgear.training.vectorized.join import joined

    quiet, lanes = Progress(quiet=True), []
    for seed in range(arguments.runs):
        config = scratch.Config(
            data=arguments.data or "drawn", image_size=arguments.size, seed=seed
        )
        with contextlib.redirect_stdout(sys.stderr):
            training = assembly.prepare(config, scratch.recipe)
        lanes.append(
            Lane(
                name=str(seed),
                state=training.state,
                train=training.train,
                val=training.val,
                first=1,
                last=sys.maxsize,
                schedule=training.rate.recorded,
                step_options=training.step_options,
            )
        )
    epochs = training.epochs(training.state, last=sys.maxsize, progress=quiet)
    rounds = Rounds(lanes, Signals(), quiet)
    together = [rounds.epochs(number) for number in range(len(lanes))]
    seconds: dict[str, list[float]] = {"together": [], "one": []}
    stop = time.perf_counter() + arguments.seconds
    while time.perf_counter() < stop or len(seconds["one"]) < 4:
        for name, run in (("together", together), ("one", [epochs])):
            start = time.perf_counter()
            for of_seed in run:
                next(of_seed)
            seconds[name].append(time.perf_counter() - start)
    epochs.close()
    all_seeds, one = (statistics.median(times[1:]) for times in seconds.values())
    step = jax.vmap(joined([lane.step() for lane in lanes]))
    shapes = [
        jax.ShapeDtypeStruct((len(lanes), *leaf.shape), leaf.dtype)
        for leaf in lanes[0].step().in_avals
    ]
    work = flops(jax.make_jaxpr(step)(np.arange(len(lanes)), *shapes))
    pictures = sum(lane.train.examples for lane in lanes)
    return {
        "seeds": len(lanes),
        "images_per_second": round(pictures / all_seeds, 2),
        "speedup": round(len(lanes) * one / all_seeds, 3),
        "flops": round(work / flops(lanes[0].step()), 3),
    }
