"""Compiled programs, kept between runs."""

import contextlib
import functools
import hashlib
import platform
from pathlib import Path

import jax

from jaxgear.cache import user_cache


@functools.cache
def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache folder: a second start of the same run is quick.

    A folder chosen by `JAX_COMPILATION_CACHE_DIR` stays.
    """
    cache = user_cache()
    if cache is None or jax.config.jax_compilation_cache_dir:
        return
    with contextlib.suppress(OSError):
        folder = cache / f"xla-{processor()}"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # All programs: the small ones of a run's start add up, on a GPU to two seconds.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def processor() -> str:
    """A short name of this kind of processor: a home may be shared between machines, and a CPU
    program runs only where its instructions are.
    """
    flags = ""
    with contextlib.suppress(OSError):  # Linux alone has it
        cpu = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in cpu if line.startswith("flags")), "")
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:8]
