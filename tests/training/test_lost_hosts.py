"""Another host that cannot be found, ends, or falls silent: what this one says, in one process."""

import jax
import pytest

from jaxgear.errors import UsageError
from jaxgear.machine import hosts
from jaxgear.machine.hosts import coordinator, lost
from jaxgear.machine.hosts.lost import BEATS, SignsOfLife


def test_an_error_from_another_hosts_end_says_what_it_was(monkeypatch):
    assert hosts.lost_host(RuntimeError("Gloo AllGather failed")) is None  # no other host
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(lost, "_run", "RUN")
    hosts.name_run("runs/a")
    error = hosts.lost_host(ValueError("UNKNOWN: Gloo AllGather failed\nmore"))
    assert str(error).endswith("with --resume runs/a (UNKNOWN: Gloo AllGather failed)")
    assert hosts.lost_host(ValueError("No space left on device")) is None
    assert hosts.lost_host(OSError("a barrier")) is None


def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(coordinator, "PATIENCE", 0.1)
    with pytest.raises(UsageError, match=r"127.0.0.1:9: host 0 does not answer \(Connection refus"):
        hosts.join(2, 1, "127.0.0.1:9")
    with pytest.raises(UsageError, match="--coordinator here: expected ADDRESS:PORT"):
        hosts.join(2, 1, "here")


class Store(dict):
    """The coordinator's key-value store in one process."""

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self
        self[key] = value

    def key_value_dir_get(self, key):
        return [pair for pair in self.items() if pair[0].startswith(key)]


def beat(*signs):
    for one in signs:
        one.exchange()
    return [one.a_beat_later() for one in signs]


def test_a_silent_host_is_named_and_the_first_host_is_the_last_to_end():
    store = Store()
    zero, one, two = (SignsOfLife(store, host, 3) for host in range(3))
    for _ in range(3 * BEATS):
        assert beat(zero, one, two) == [None] * 3
    found = [beat(zero, one) for _ in range(BEATS + 3)]  # host 2 is silent
    complaint = "host 2 was silent for 60 s"
    assert [after for _, after in found].index(complaint) == BEATS
    assert [after for after, _ in found].index(complaint) == BEATS + 2
    assert two.a_beat_later() is None  # it wakes: its own pause says nothing of the others


def test_a_first_host_that_does_not_answer_is_named_by_all_others():
    store = Store()
    signs = [SignsOfLife(store, host, 3) for host in range(3)]
    beat(*signs)
    for _ in range(BEATS - 1):
        assert signs[1].a_beat_later() is None
    signs[2].exchange()  # what the others write does not come back
    assert signs[1].a_beat_later() == "host 0 has not answered for 60 s"
