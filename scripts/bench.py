"""Times jaxgear, in turn with a peer where one is named.

    python -m scripts.bench features-resnet50 --size 128 --seconds 20
    python -m scripts.bench reach --data FOLDER --accuracy 0.90
    python -m scripts.bench train-reference --pairs 5 --peer 'python torch_peer.py train-reference'

Tasks, each the same work as the peer's of that name:

    features-resnet50   features of a frozen ResNet-50, uint8 pictures in, batch 32
    train-resnet50      forward and backward pass of ResNet-50, batch 16
    train-reference     one optimizer step of a small CNN as others use on these pictures, batch 50
    predict             `jaxgear predict RUN` as a whole process, decoding included; its peer is
                        scripts/benchmarks/torch_predict.py
    reach               wall seconds from the first command to a test accuracy, everything included:
                        imports, checking and splitting the pictures with an empty cache,
                        compilation, training, the test

With `--peer` the two run in turn (A B A B ...), since the speed of a shared machine drifts; the
ratio is that of the medians. The last line is JSON, as the peer's must be.
"""

import argparse
import functools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Reaches 0.90 with a little to spare (validation 0.92 with seed 0), and in time on two cores.
SHORT = {"--epochs": "6", "--image-size": "80"}
CLASSES = 12


def features_resnet50(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second through the frozen, folded network, its preprocessing included."""
    import jax
    import jax.numpy as jnp

    from jaxgear.models.preprocess import imagenet
    from jaxgear.models.pretrained import Backbone
    from jaxgear.models.resnet import ResNet

    batch = arguments.batch or 32
    images = jnp.asarray(_pictures(batch, arguments.size))
    module = ResNet(50)
    variables = module.init(jax.random.key(0), images[:1].astype(jnp.float32))
    backbone = Backbone(module, variables, None, imagenet(), "random", "0" * 64).fold()
    return _rate(lambda: backbone.features(images), batch, arguments.seconds)


def train_resnet50(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second forward and backward, batch statistics included."""
    import jax

    from jaxgear.models.resnet import ResNet

    batch = arguments.batch or 16
    module = ResNet(50)
    images = jax.random.normal(jax.random.key(1), (batch, arguments.size, arguments.size, 3))
    variables = module.init(jax.random.key(0), images)

    @jax.jit
    def step(variables: Any) -> Any:
        def loss(params: Any) -> Any:
            here = {"params": params, "batch_stats": variables["batch_stats"]}
            features, changed = module.apply(here, images, train=True, mutable=["batch_stats"])
            return (features**2).mean(), changed

        return jax.grad(loss, has_aux=True)(variables["params"])

    return _rate(lambda: step(variables), batch, arguments.seconds)


def train_reference(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second in whole training steps of `ReferenceCNN`, with Adam."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxgear.data.batches import Batches
    from jaxgear.models.reference import ReferenceCNN
    from jaxgear.training import steps

    batch = arguments.batch or 50
    labels = np.random.default_rng(1).integers(0, CLASSES, batch)
    batches = Batches(_pictures(batch, 128), labels, batch)
    state = steps.init_state(ReferenceCNN(CLASSES), optax.adam(1e-3), batches.images[:1], 0)
    loss = steps.smoothed_cross_entropy(0.0)
    options = {"classes": CLASSES, "loss": loss}
    train_step = jax.jit(functools.partial(steps.train_step, **options), donate_argnums=0)
    one = next(batches.ordered())

    def step() -> jnp.ndarray:
        nonlocal state
        state, metrics, _ = train_step(state, one)
        return metrics.loss

    return _rate(step, batch, arguments.seconds)


def reach(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of the scratch experiment on a short schedule, all caches empty."""
    if not arguments.data:
        raise SystemExit("reach: --data FOLDER is needed")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "experiments.scratch", "--out", f"{scratch}/runs"]
        command += ["--data", arguments.data, "--seed", str(arguments.seed)]
        command += [word for flag in SHORT.items() for word in flag]
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=sys.stderr,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"JAXGEAR_CACHE": f"{scratch}/cache"},
        )
        seconds = time.perf_counter() - start
        (run,) = Path(scratch, "runs").iterdir()
        accuracy = json.loads((run / "test.json").read_text())["accuracy"]
    if accuracy < arguments.accuracy:
        print(f"warning: test accuracy {accuracy:.4f} is short of the goal", file=sys.stderr)
    return {"accuracy": round(accuracy, 4), "seconds": round(seconds, 1)} | {
        flag.strip("-").replace("-", "_"): int(value) for flag, value in SHORT.items()
    }


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command on `--limit` pictures with a CSV, programs compiled before; decoding included."""
    files = sorted(str(path) for path in Path(arguments.data).rglob("*") if path.is_file())
    files = files[: arguments.limit]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "jaxgear", "predict", arguments.run, *files]
        command += ["--csv", f"{scratch}/found.csv"]
        for _ in range(2):  # the first compiles, where nobody has
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
    return {
        "images": len(files),
        "images_per_second": round(len(files) / seconds),
        "seconds": round(seconds, 2),
    }


# Task -> its function, and the figure that is compared.
TASKS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], str]] = {
    "features-resnet50": (features_resnet50, "images_per_second"),
    "train-resnet50": (train_resnet50, "images_per_second"),
    "train-reference": (train_reference, "images_per_second"),
    "predict": (predict, "images_per_second"),
    "reach": (reach, "seconds"),
}


def _pictures(count: int, size: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _rate(step: Callable[[], Any], batch: int, seconds: float) -> dict[str, Any]:
    """Median pictures a second of `step`, after two calls that compile and warm up."""
    import jax

    jax.block_until_ready([step(), step()])
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(step())
        times.append(time.perf_counter() - start)
    return {"images_per_second": round(batch / statistics.median(times), 2)}


def run_peer(command: str) -> dict[str, Any]:
    """The JSON of a peer's last line."""
    done = subprocess.run(shlex.split(command), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Runs one task, alone or in turn with a peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--size", type=int, default=128, help="of pictures, in pixels")
    parser.add_argument("--batch", type=int, help="pictures a step (default: the peer's)")
    parser.add_argument("--seconds", type=float, default=20, help="to measure for, once")
    parser.add_argument("--data", help="folder of photographs")
    parser.add_argument("--accuracy", type=float, default=0.90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="run or bundle, for predict")
    parser.add_argument("--limit", type=int, default=1000, help="pictures, for predict")
    parser.add_argument("--peer", metavar="CMD", help="a command that does the same")
    parser.add_argument("--pairs", type=int, default=1, help="how often the two run")
    arguments = parser.parse_args()
    task, figure = TASKS[arguments.task]
    ours, peers = [], []
    for _ in range(arguments.pairs):
        ours.append(task(arguments))
        if arguments.peer:
            peers.append(run_peer(arguments.peer))
            print(json.dumps([ours[-1], peers[-1]]), file=sys.stderr)
    median = statistics.median(result[figure] for result in ours)
    summary = {"task": arguments.task, **ours[-1], figure: median, "runs": len(ours)}
    if peers:
        theirs = statistics.median(result[figure] for result in peers)
        summary |= {f"peer_{figure}": theirs, "ratio": round(median / theirs, 3)}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
