"""Caches compiled programs between runs."""

import contextlib
import functools
import hashlib
import platform
from pathlib import Path

import jax

from jaxgear.cache import user_cache


@functools.cache
def keep_compiled() -> None:
    """Caches compiled programs in the user's cache folder, so a second start of a run is fast.

    A folder set by `JAX_COMPILATION_CACHE_DIR` takes precedence.
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


def processor() -> str:
    """A short name of this processor type.

    Machines may share a home, and a CPU program runs only on processors that have its instructions.
    """
    flags = ""
    with contextlib.suppress(OSError):  # only Linux has the file
        cpu = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in cpu if line.startswith("flags")), "")
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:8]
