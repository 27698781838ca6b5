"""The profiler: which steps are traced, and what is the longest."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from jaxgear.machine.profiler import Profiler, durations


def traced(folder, steps, sent):
    """What a profiler says while programs of `sent` steps are sent."""
    said = []

    @jax.jit
    def program(x):
        return jnp.tanh(x @ x / 100)

    state = jnp.ones((64, 64))
    with Profiler(folder, steps, said.append) as profiler:
        for count in sent:
            state = program(state)
            profiler.step(state, count)
    return said


def test_a_trace_of_some_steps_and_their_longest_operations(tmp_path):
    said = traced(tmp_path / "profile", 2, [1] * 5)
    first, *longest = said
    file = first.removeprefix("profile of 2 steps: ").removesuffix(
        " (https://ui.perfetto.dev opens it)"
    )
    with gzip.open(file) as trace:
        events = json.load(trace)["traceEvents"]
    assert {len(times) for times in durations(events).values()} == {2}  # not the first, nor later
    assert 1 <= len(longest) <= 5
    shares = [float(line.split()[2].removesuffix("%")) for line in longest]
    assert shares == sorted(shares, reverse=True)
    assert all(line.split()[3:5] == ["2", "times"] for line in longest)


@pytest.mark.parametrize(
    ("steps", "sent", "said"),
    [
        (0, [1, 1], []),
        (5, [1], ["no profile: training ended "]),  # the first program is not traced
        (40, [32, 32, 32], ["profile of 64 steps: "]),  # whole programs
        (10, [1, 1, 1], ["profile of 2 steps: "]),  # training ended
    ],
)
def test_programs_of_several_steps_and_too_few(steps, sent, said, tmp_path):
    found = traced(tmp_path / "profile", steps, sent)
    assert [line[: len(start)] for line, start in zip(found, said, strict=False)] == said
    assert bool(found) == bool(said)


def test_an_operation_within_another_counts_once():
    """A loop of 10 us whose body takes 3 and 4; then one alone, and what is no operation."""

    def event(name, ts, dur, tid=1):
        return {"ph": "X", "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": {"hlo_op": name}}

    events = [
        event("while", 0, 10),
        event("dot", 1, 3),
        event("add", 5, 4),
        event("dot", 10, 2),
        event("dot", 0, 5, tid=2),
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 50, "args": {}},
        {},
    ]
    assert durations(events) == {"while": [3], "dot": [3, 2, 5], "add": [4]}
    named = {"ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": {"name": "XLA Ops"}}
    assert durations([*events, named]) == {"dot": [5]}  # a GPU has each once more, by stream
