"""Kills a short run at random moments and resumes it: it must end as if it had never been killed.

    python -m scripts.kill_runs --kills 100

The run uses everything that keeps state: dropout, mixup, a moving average, momentum, early
stopping. It is killed (SIGKILL) at a random moment or during a save, and resumed, until it
finishes; then the next run starts. A run that was never killed gives the expected result: the
sha256 of every leaf of the last state, the history and the test must be equal.

`python -m scripts.kill_runs train` starts such a run.
"""

import argparse
import dataclasses
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TRAIN = ["--data", "drawn:60", "--image-size", "16", "--batch-size", "8"]
KEPT = ("state.json", "test.json", "model/weights.safetensors")


def train() -> None:
    """Trains one run, with the flags of any experiment."""
    import jax
    import optax

    from jaxgear import cli, experiment
    from jaxgear.data.augment import chain, flip
    from jaxgear.data.augment.transforms import mixup
    from jaxgear.experiment import Data, Recipe
    from jaxgear.files import write_json
    from jaxgear.models.convnet import Conv, ConvNet, Dropout, GlobalPool
    from jaxgear.training import steps

    @dataclasses.dataclass(frozen=True)
    class Config(experiment.Config):
        epochs: experiment.Count = 10
        patience: experiment.Count = 5

    def recipe(config: Config, data: Data) -> Recipe:
        layers = [Conv(4, strides=2), Dropout(0.2), GlobalPool()]
        return Recipe(
            model=ConvNet(layers, data.classes),
            epochs=config.epochs,
            rate=0.05,
            optimizer=lambda rate: optax.sgd(rate, momentum=0.9),
            average=0.999,
            loss=steps.smoothed_cross_entropy(0.1),
            augment=chain(flip(), data.backgrounds(config.paste)),
            mix=mixup(0.2),
        )

    def main(config: Config) -> Path:
        with experiment.start(config, recipe) as run:
            for _ in run.epochs():
                if run.patience_exhausted:
                    break
            write_json(run.path / "state.json", _digests(jax.device_get(_raw(run.state))))
            return run.finish()

    def _raw(state: steps.TrainState) -> steps.TrainState:
        return state.replace(key=jax.random.key_data(state.key))

    def _digests(tree: Any) -> dict[str, str]:
        return {
            jax.tree_util.keystr(path): hashlib.sha256(leaf.tobytes()).hexdigest()
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }

    sys.argv = [sys.argv[0], *sys.argv[2:]]
    cli.run_experiment(main, Config)


def start(out: Path, run: Path | None) -> subprocess.Popen:
    """Starts the process of a new run in `out`, or resumes `run`."""
    flags = ["--resume", run] if run else [*TRAIN, "--out", out]
    command = [sys.executable, "-m", "scripts.kill_runs", "train", *map(str, flags)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def kill_some_time(process: subprocess.Popen, out: Path, longest: float, rng: random.Random) -> str:
    """Kills at a random moment or during a save; "killed", or "ended" if it came too late."""
    during_save = rng.random() < 0.5
    saves = rng.randrange(1, 10)  # kill during this one
    stop = time.perf_counter() + (60 if during_save else rng.uniform(0, longest))
    saving = False
    while time.perf_counter() < stop and process.poll() is None:
        if during_save:
            now = any(out.glob("*/checkpoints/*.orbax-checkpoint-tmp"))
            saves -= now and not saving
            saving = now
            if saving and not saves:
                time.sleep(rng.uniform(0, 0.05))
                break
        time.sleep(0.001)
    ended = process.poll() is not None
    process.kill()
    return "ended" if ended else "killed"


def outcome(run: Path) -> dict[str, Any]:
    """Hashes and history of a run, which must be equal to the bit."""
    hashes = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in KEPT}
    lines = (run / "history.csv").read_text().splitlines()
    return hashes | {"history": [line.rpartition(",")[0] for line in lines]}  # without seconds


def main(argv: list[str] | None = None) -> int:
    """Prints the counts after each run; returns 1 if a run was lost or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    arguments = parser.parse_args(argv)
    rng = random.Random(arguments.seed)
    counts = dict.fromkeys(("killed", "resumed", "lost", "finished", "different"), 0)
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        process = start(Path(scratch, "straight"), None)
        _, complaint = process.communicate()
        if process.returncode:
            raise SystemExit(f"the run that is not killed failed: {complaint}")
        longest = time.perf_counter() - begin
        expected = outcome(_run_in(Path(scratch, "straight")))
        while counts["killed"] < arguments.kills:
            out = Path(scratch, f"run {counts['finished'] + counts['lost']}")
            done = False
            while not done:
                run = _run_in(out)
                process = start(out, run)
                # After the last kill, let the run finish.
                spare = counts["killed"] >= arguments.kills
                how = "ended" if spare else kill_some_time(process, out, longest, rng)
                _, complaint = process.communicate()
                counts["resumed"] += run is not None
                if how == "killed":
                    counts["killed"] += 1
                    continue
                done = True
                if process.returncode:
                    counts["lost"] += 1
                    print(f"lost: {complaint}")
                else:
                    counts["finished"] += 1
                    counts["different"] += outcome(_run_in(out)) != expected
                print(json.dumps(counts), flush=True)
    print(f"{counts['killed']} killed, {counts['lost']} lost, {counts['different']} different")
    return int(counts["lost"] + counts["different"] > 0)


def _run_in(out: Path) -> Path | None:
    return next(iter(out.glob("kill_runs-*")), None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train()
    raise SystemExit(main())
