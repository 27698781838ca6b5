"""Sets up a process that trains, before it imports JAX: its garbage collector and XLA's flags.

`xla_cpu_flatten_after_fusion` gives each fusion of a CPU program its own computation. A step of
ResNet-50 takes 5 % less time; other networks take as long as before (results/README.md, "Batch
normalisation and XLA's fusions").
"""

import gc
import os

FLAG = "--xla_backend_extra_options"
NEW_OBJECTS = 100_000  # until Python looks for cycles among them; its own number is 700 to 2,000

_own_thresholds: tuple[int, int, int] | None = None  # while others hold


def set_up_process() -> None:
    """Sets XLA's flags, and looks for cycles of garbage rarely until `collect_as_usual`.

    Call it before JAX looks for devices, which is when XLA reads its flags. Importing and tracing
    make millions of objects that stay, so the looks take a tenth of the time to the first step.
    """
    global _own_thresholds
    _own_thresholds = _own_thresholds or gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *_own_thresholds[1:])
    set_xla_flags()


def collect_as_usual() -> None:
    """Looks for cycles as often as Python does: pictures in them would stay in memory."""
    global _own_thresholds
    if _own_thresholds is not None:
        gc.set_threshold(*_own_thresholds)
        _own_thresholds = None


def set_xla_flags() -> None:
    """Adds the flag to XLA_FLAGS, unless such options are set already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=xla_cpu_flatten_after_fusion".strip()
