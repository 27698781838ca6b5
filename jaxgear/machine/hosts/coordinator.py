"""Joins the devices of several processes, by JAX's coordinator in host 0."""

import signal
import socket
import sys
import time

import jax

from jaxgear.errors import UsageError, first_line
from jaxgear.machine.hosts import lost

PATIENCE = 60  # seconds to wait for all hosts


def join(hosts: int, host_id: int, coordinator: str) -> None:
    """Makes this process one of `hosts`; does nothing for one host. Call it before any use of JAX.

    For 0 hosts, Slurm, Open MPI or Kubernetes give their number, the host id and the coordinator.
    From then on a host that falls silent ends this process (`lost.watch`).

    Raises:
        UsageError: the other hosts cannot be reached.
    """
    if hosts == 1:
        return
    named = {}
    if hosts:
        _wait_for(coordinator, host_id)
        named = {
            "coordinator_address": coordinator,
            "num_processes": hosts,
            "process_id": host_id,
        }
    before = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=PATIENCE,
            # JAX ends the process with a C++ stack trace, so `lost.watch` must be first.
            heartbeat_timeout_seconds=4 * lost.SILENCE,
            shutdown_timeout_seconds=3600,  # the others wait while the first host writes its report
        )
    except (RuntimeError, ValueError) as error:
        where = f"--coordinator {coordinator}" if hosts else "--hosts 0"
        raise UsageError(f"{where}: the hosts could not connect ({first_line(error)})") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # JAX takes it for a preemption notice
    lost.watch()


def _wait_for(coordinator: str, host_id: int) -> None:
    """Waits until host 0 listens. JAX itself would abort the process with a C++ stack trace."""
    address, _, port = coordinator.rpartition(":")
    if not address or not port.isdigit():
        raise UsageError(f"--coordinator {coordinator}: expected ADDRESS:PORT")
    if host_id == 0:
        print(f"host 0: waiting {PATIENCE} s for the other hosts at {coordinator}", file=sys.stderr)
        return
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((address, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UsageError(
                    f"--coordinator {coordinator}: host 0 does not answer ({error.strerror})"
                ) from error
            time.sleep(0.2)
