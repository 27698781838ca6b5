"""Caches compiled programs between runs."""

import contextlib
import functools
import hashlib
import platform
from pathlib import Path
from typing import Any

import jax
from jax import distributed

from jaxgear.cache import user_cache
from jaxgear.machine import devices


@functools.cache
def keep_compiled() -> None:
    """Caches compiled programs in the user's cache folder, so a second start of a run is fast.

    Each host keeps its own. If `JAX_COMPILATION_CACHE_DIR` names a folder, JAX uses it, and keeps
    only the first host's programs there.
    """
    cache = user_cache()
    if cache is None or jax.config.jax_compilation_cache_dir:
        return
    with contextlib.suppress(OSError):
        folder = cache / f"xla-{processor()}"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # Cache all programs: the small ones at the start of a run add up to 2 s on a GPU.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        if distributed.is_initialized() and not devices.first_host():
            _write_here()


def _write_here() -> None:
    """Makes JAX write programs on this host too; by itself it writes on the first host alone.

    On CPUs each host has programs of its own, and a host with its own disk never sees those of the
    first one. JAX does not replace a program that is there already, as on GPUs in a shared folder.
    """
    from jax._src import compilation_cache, compiler  # neither has a public name

    def write(
        key: str, seconds: float, name: str, backend: Any, executable: Any, callbacks: Any
    ) -> None:
        if not callbacks:
            with contextlib.suppress(Exception):  # a program that cannot be kept is no obstacle
                compilation_cache.put_executable_and_time(
                    key, name, executable, backend, int(seconds)
                )

    compiler._cache_write = write


def processor() -> str:
    """A short name of this processor type.

    Machines may share a home, and a CPU program runs only on processors that have its instructions.
    """
    flags = ""
    with contextlib.suppress(OSError):  # only Linux has the file
        cpu = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in cpu if line.startswith("flags")), "")
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:8]
