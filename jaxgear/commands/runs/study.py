"""Train variants of an experiment with several seeds, and say which is best."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from jaxgear.errors import UsageError

GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `jaxgear study`."""
    parser.usage = "%(prog)s EXPERIMENT --out DIR [FLAG ...] [FLAG OF THE EXPERIMENT ...]"
    parser.epilog = (
        "All other flags go to each trial, for example --data FOLDER --epochs 5. Give the same "
        "command again to go on after a kill, or in more processes to train more trials at a time."
    )
    parser.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        help="a file, as `jaxgear new` writes one, or a module, such as "
        "jaxgear.experiments.scratch",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder of the study: study.csv, study.json, study.png and the runs",
    )  # fmt: skip
    parser.add_argument(
        "--vary", action="append", default=[], metavar="FIELD=VALUES",
        help="peak_lr=0.001,0.01 tries each value (all combinations of several --vary), "
        "peak_lr=0.001..0.1 searches a range; without it, VARIANTS of the experiment, if it has "
        "them",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="train with seeds 0 to N - 1 (5)"
    )
    parser.add_argument(
        "--budget", type=int, default=0, metavar="N",
        help="of a search: variants to try with seed 0; the best three get all seeds",
    )  # fmt: skip
    parser.add_argument(
        "--sampler", choices=("tpe", "random"), default="tpe", help="Optuna's, of a search (tpe)"
    )
    parser.add_argument(
        "--pruner", choices=("none", "median", "hyperband"), default="none",
        help="Optuna's; ends trials early whose validation accuracy is poor (none)",
    )  # fmt: skip
    parser.add_argument(
        "--storage", default="", metavar="ADDRESS",
        help="a database, or a file of an Optuna journal (.log), for many hosts "
        "(default: DIR/study.db, SQLite)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help="number of trials at a time, each on a GPU of its own if there are N (default: one a "
        "GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--vectorize", type=int, default=0, metavar="N",
        help="train up to N trials at a time as one program (jax.vmap), if their training steps "
        "differ in numbers alone: for small networks on a GPU; a CPU is slower with it",
    )  # fmt: skip
    parser.add_argument(
        "--target", type=float, metavar="ACCURACY",
        help="say how many seconds and FLOPs each variant took to be right on that share of the "
        "validation pictures (0 to 1)",
    )  # fmt: skip
    parser.add_argument(
        "--find-rate", action="store_true",
        help="suggest a learning rate from one short run of each variant, instead of a study",
    )  # fmt: skip


def passed_on(others: Sequence[str]) -> list[str]:
    """The flags of the experiment: all that this command does not know."""
    return [word for word in others if word != "--"]


def run(arguments: argparse.Namespace) -> None:
    """Makes or continues a study, or finds a rate."""
    from jaxgear.study import rate_finder, study, variants

    executors = _executors(arguments)
    module, config = executors[0].module, executors[0].config
    space = variants.read_space(arguments.vary, config, arguments.flags)
    if arguments.find_rate:
        rate_finder.find_and_draw(module, arguments.flags, space, arguments.out)
        return
    if arguments.out is None:
        raise UsageError("--out DIR: name a folder for the study")
    study(
        executors,
        arguments.out,
        space or getattr(module, "VARIANTS", ()),
        seeds=arguments.seeds,
        budget=arguments.budget,
        sampler=arguments.sampler,
        pruner=_pruner(arguments.pruner),
        storage=arguments.storage,
        target=arguments.target,
    )


def _executors(arguments: argparse.Namespace):
    from jaxgear.study import Command, Vectorized

    experiment, flags = arguments.experiment, arguments.flags
    for name in ("workers", "vectorize"):
        if getattr(arguments, name) < 0:
            raise UsageError(f"--{name} {getattr(arguments, name)}: must be at least 0")
    if arguments.vectorize:
        if arguments.workers or arguments.pruner != "none":
            raise UsageError("--vectorize N: does not go with --workers or --pruner")
        return [Vectorized(experiment, flags, arguments.vectorize)]
    gpus = _gpus()
    workers = arguments.workers or max(1, len(gpus))
    return [
        Command(experiment, flags, gpus[i % len(gpus)] if gpus else None) for i in range(workers)
    ]


def _pruner(name: str):
    import optuna

    return {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }[name]()


def _gpus() -> list[str]:
    """Numbers of the GPUs of this machine that CUDA may use; asking JAX would take their memory."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    return [str(i) for i in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []
