"""What the machine lacks, as one line: memory, threads, a library, a platform."""

import sys


def lacking(error: Exception) -> str | None:
    """What the machine lacks if that caused an error, and what to do; None for other errors."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError):
        return f"not enough memory{_limit()} ({text or 'an allocation failed'})"
    if "RESOURCE_EXHAUSTED" in text:
        return f"not enough memory on the device, try a smaller --batch-size ({text[:200]})"
    if "can't start new thread" in text:
        return f"no thread can be started: too many processes (ulimit -u), or memory{_limit()}"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded ({text}); install jaxgear again, with what it needs"
    jax = sys.modules.get("jax")
    if jax is None or not jax.config.jax_platforms:
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as missing:  # the type depends on the platform
        reason = str(missing).partition("\n")[0][:200] or "no such devices, or no plugin for them"
        return f"JAX_PLATFORMS={jax.config.jax_platforms}: not on this machine ({reason})"
    return None


def _limit() -> str:
    """The memory limit of the process, which batch systems set, or ""."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return ""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" within ulimit -v {limit >> 10}"
