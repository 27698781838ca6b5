"""Work on the nodes of a Ray cluster: `pip install 'jaxgear[cluster]'`, `ray start --head`.

Nodes share the file system: folders have the same path on each. Ray starts a task again if its node
dies. Each process of a node imports jaxgear once and keeps what a task caches.
"""

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from jaxgear.errors import DataError, UsageError, first_line

Item, Result = TypeVar("Item"), TypeVar("Result")

AHEAD = 2  # tasks submitted for each that runs, so that nodes never idle


class Cluster:
    """A Ray cluster. A context manager: leaving it drops the tasks that are under way."""

    def __init__(self, address: str):
        """Joins the cluster at `address`: `auto`, or `HOST:6379`.

        Raises:
            UsageError: Ray is not installed, or no cluster is there.
        """
        try:
            import ray
        except ImportError:
            raise UsageError("--ray needs Ray: pip install 'jaxgear[cluster]'") from None
        ended = signal.getsignal(signal.SIGTERM)  # Ray would exit with 15
        try:
            if address != "auto":  # Ray itself would wait for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"--ray {address}: no Ray cluster is there ({first_line(error)})"
            ) from None
        signal.signal(signal.SIGTERM, ended)
        self._ray = ray

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def map(
        self,
        function: Callable[..., Result],
        items: Iterable[Item],
        *shared: Any,
        whole_nodes: bool = False,
    ) -> Iterator[Result]:
        """Yields `function(item, *shared)` for each item, in order.

        A task takes a core. With `whole_nodes` it takes all cores of a node, or a GPU: for JAX,
        which uses all that a machine has.

        Raises:
            DataError: Ray gave a task up. An error of `function` is raised as it is.
        """
        ray = self._ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        options: dict[str, Any] = {"max_retries": -1, "num_cpus": 1}
        if whole_nodes:
            options |= {"num_gpus": 1} if gpus else {"num_cpus": min(cores)}
        running = gpus or len(cores) if whole_nodes else sum(cores)
        task = ray.remote(**options)(_call)
        shared = [ray.put(value) for value in shared]
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(task.remote(function, str(Path.cwd()), item, *shared))
            if len(waiting) > AHEAD * running:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, task: Any) -> Any:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", error)
            if not isinstance(cause, self._ray.exceptions.RayError):
                raise cause from None
            reason = first_line(cause)
            raise DataError(f"Ray gave up ({reason}); start again to continue") from None


def _call(function: Callable[..., Result], folder: str, item: Item, *shared: Any) -> Result:
    """A task: with relative paths from where the command was given."""
    os.chdir(folder)
    return function(item, *shared)
