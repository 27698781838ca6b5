"""What spreads over machines, in turn: preparing on Ray and in processes, grouping with a burst."""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def ray(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `jaxgear prepare` in 1 and 2 processes, and on 1 and 2 Ray nodes of a core."""
    from ray.cluster_utils import Cluster as Nodes

    from jaxgear.cluster import Cluster
    from jaxgear.data.prepare.prepared import prepare

    times: dict[str, list[float]] = {}
    pictures = sum(1 for path in arguments.folder.glob("*/*") if path.is_file())
    for _ in range(arguments.rounds):
        for count in (1, 2):
            nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
            for _ in range(count):
                nodes.add_node(num_cpus=1)
            with Cluster(nodes.address) as cluster:
                list(cluster.map(len, ["", ""] * count))  # the processes of the nodes have started
                for name, options in (("processes", {}), ("ray", {"cluster": cluster})):
                    out = Path(tempfile.mkdtemp(prefix="scale-"))
                    start = time.perf_counter()
                    size = arguments.size or None
                    say = lambda line: None  # noqa: E731
                    prepare(arguments.folder, out, size=size, workers=count, say=say, **options)
                    seconds = time.perf_counter() - start
                    times.setdefault(f"{name} {count}", []).append(round(seconds, 2))
                    shutil.rmtree(out)
            nodes.shutdown()
            print(times, flush=True)
    medians = {name: statistics.median(own) for name, own in times.items()}
    return {
        "pictures": pictures,
        "size": arguments.size,
        "seconds": medians,
        "gain_of_a_second_node": round(medians["ray 1"] / medians["ray 2"], 3),
        "time_beside_processes": round(medians["ray 2"] / medians["processes 2"], 3),
    }


def group(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds to group `--count` made descriptors: all different, and a fifth of them the same."""
    from jaxgear.data.images.descriptor import COLUMNS, ROWS
    from jaxgear.data.splits.near_duplicates import groups

    count, rng = arguments.count, np.random.default_rng(0)
    grey = rng.integers(0, 256, (count, 2, ROWS // 2, COLUMNS // 2 + 1), np.uint8)
    views = grey.repeat(2, axis=2).repeat(2, axis=3)[:, :, :ROWS, :COLUMNS]
    size = np.tile(np.array([100, 100], "<u2").view(np.uint8), (count, 1))
    different = [row.tobytes() for row in np.hstack([size, views.reshape(count, -1)])]
    burst = different[: -(count // 5)] + different[:1] * (count // 5)
    times: dict[str, list[float]] = {"different": [], "burst": []}
    for _ in range(arguments.rounds):
        for name, descriptors in (("different", different), ("burst", burst)):
            start = time.perf_counter()
            found = len(np.unique(groups(descriptors)))
            times[name].append(time.perf_counter() - start)
            assert found == len(set(descriptors)), found
        print(times, flush=True)
    pairs = zip(times["burst"], times["different"], strict=True)
    return {
        "images": count,
        "seconds": {name: round(statistics.median(own), 4) for name, own in times.items()},
        "ratio": round(statistics.median(burst / other for burst, other in pairs), 3),
    }
