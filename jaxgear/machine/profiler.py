"""Traces training steps with JAX's profiler, and finds the operations that take longest."""

import collections
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

LONGEST = 5


class Profiler:
    """Writes a trace of `steps` training steps below `folder`; 0: of none. A context manager.

    The trace skips the first program, which may still allocate. It ends once `steps` steps are
    traced, or when training ends. `say` gets the file and the longest operations.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], None]):
        self._folder, self._steps, self._say = folder, steps, say
        self._traced: int | None = None  # steps; None: not begun

    def step(self, state: Any, count: int) -> None:
        """Notes that a program of `count` steps was sent to the devices, which gives `state`."""
        if not self._steps:
            return
        if self._traced is None:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python would be most of the file
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._traced = 0
            return
        self._traced += count
        if self._traced >= self._steps:
            jax.block_until_ready(state)
            self._stop()

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._traced is not None and self._steps:
            self._stop()

    def _stop(self) -> None:
        self._steps = 0
        jax.profiler.stop_trace()
        if not self._traced:
            self._say("no profile: training ended after its first program, which is not traced")
            return
        file = max(self._folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
        self._say(f"profile of {self._traced} steps: {file} (https://ui.perfetto.dev opens it)")
        with gzip.open(file) as trace:
            operations = durations(json.load(trace)["traceEvents"])
        total = sum(map(sum, operations.values()))
        longest = sorted(operations, key=lambda name: -sum(operations[name]))[:LONGEST]
        for name in longest:
            own = operations[name]
            self._say(
                f"  {sum(own) / 1000:8.2f} ms {sum(own) / total:6.1%}  {len(own):5d} times  {name}"
            )


def durations(events: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """Microseconds of each execution of each XLA operation in a trace, by name.

    The operations within another one (a loop's body) do not count to it. A GPU's operations are in
    the trace by stream and once more as "XLA Ops"; they count once.
    """
    threads = collections.defaultdict(list)
    derived = set()
    for event in events:
        thread = event.get("pid"), event.get("tid")
        arguments = event.get("args", {})
        if event.get("ph") == "X" and "hlo_op" in arguments:
            threads[thread].append(event)
        elif event.get("name") == "thread_name" and arguments.get("name") == "XLA Ops":
            derived.add(thread)
    with_derived = {process for process, _ in derived}
    found = collections.defaultdict(list)
    for thread, own in threads.items():
        if thread[0] in with_derived and thread not in derived:
            continue
        around = []  # (end, name, index) of the operations that the next one may lie in
        for event in sorted(own, key=lambda event: (event["ts"], -event["dur"])):
            start, duration, name = event["ts"], event["dur"], event["args"]["hlo_op"]
            while around and around[-1][0] <= start:
                around.pop()
            if around:
                _, outer, index = around[-1]
                found[outer][index] -= duration
            around.append((start + duration, name, len(found[name])))
            found[name].append(duration)
    return dict(found)
