"""Another host that ended, froze or cannot be reached: how this host notices, and what it says.

A host that ends closes its connections, and the next collective raises (`lost_host`). One that
freezes keeps them open, and collectives wait for ever. So each host writes a count to the key-value
store of JAX's coordinator, which is in host 0, and reads the counts of the others (`watch`).
"""

import contextlib
import os
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the coordinator's client has no public name; Orbax takes it too

from jaxgear.errors import GearError, first_line

SILENCE = 60  # seconds without a sign of life after which a host counts as lost
BEATS = 12  # signs of life in that time
KEYS = "jaxgear/alive/"  # before the number of a host
# Words in messages of JAX, Gloo and Orbax about a lost host.
LOST = ("gloo", "connection closed", "connection reset", "heartbeat", "coordination", "barrier")
_run: object = "RUN"


def name_run(path: object) -> None:
    """Sets the run folder that later messages name."""
    global _run
    _run = path


def lost_host(error: BaseException | None) -> GearError | None:
    """The error to report if `error` comes from the loss of another host; otherwise None."""
    # JAX raises a ValueError when it reads an array, Orbax a TimeoutError for a broken barrier.
    if not isinstance(error, RuntimeError | ValueError | TimeoutError):
        return None
    text = str(error).lower()
    if jax.process_count() == 1 or not any(sign in text for sign in LOST):
        return None
    return _advice(first_line(error))


def _advice(reason: str) -> GearError:
    return GearError(
        "another host ended or cannot be reached; saved files are whole, start all hosts again "
        f"with --resume {_run} ({reason})"
    )


def watch() -> None:
    """Starts two threads that end this process when another host falls silent.

    JAX's client too ends the process, but with a C++ stack trace: jaxlib 0.10 cannot call Python
    for it (`missed_heartbeat_callback` aborts). Only a call that keeps Python's lock for `SILENCE`
    seconds makes a living host silent.
    """
    state = distributed.global_state
    signs = SignsOfLife(state.client, state.process_id, state.num_processes)
    beat = SILENCE / BEATS

    def tell() -> None:
        while True:
            with contextlib.suppress(RuntimeError):  # no answer: the hosts grow older
                signs.exchange()
            time.sleep(beat)

    def check() -> None:
        while jax.distributed.is_initialized():
            time.sleep(beat)
            if reason := signs.a_beat_later():
                _end(_advice(reason))

    # Two, because `exchange` waits while host 0 is frozen.
    for work in (tell, check):
        threading.Thread(target=work, name=f"hosts: {work.__name__}", daemon=True).start()


def _end(error: GearError) -> NoReturn:
    """Ends the process from any thread: the main one may be inside a collective for ever."""
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


class SignsOfLife:
    """How long ago, in beats of this host, each host was heard of.

    Beats are counted, not seconds: if this whole process pauses, nobody grows older. `store` is
    JAX's client of the coordinator.
    """

    def __init__(self, store: Any, host: int, hosts: int):
        self._store, self._host = store, host
        self._count = 0
        self._counts = [""] * hosts
        self._ages = [0] * hosts
        # Host 0 waits longest: it holds the store that tells the others who is lost.
        self._oldest = BEATS + (2 if host == 0 else 0)

    def exchange(self) -> None:
        """Tells the others that this host lives, and notes which of them do.

        It waits for host 0. RuntimeError: host 0 has gone.
        """
        self._count += 1
        self._store.key_value_set(f"{KEYS}{self._host}", str(self._count), allow_overwrite=True)
        for key, count in self._store.key_value_dir_get(KEYS):
            host = int(key.rpartition("/")[2])
            if count != self._counts[host]:
                self._counts[host], self._ages[host] = count, 0

    def a_beat_later(self) -> str | None:
        """Adds a beat to all ages; says who is lost, or None."""
        self._ages = [age + 1 for age in self._ages]
        silent = [host for host, age in enumerate(self._ages) if age > self._oldest]
        if self._host in silent:  # its own count did not come back
            return f"host 0 has not answered for {SILENCE} s"
        return f"host {silent[0]} was silent for {SILENCE} s" if silent else None
