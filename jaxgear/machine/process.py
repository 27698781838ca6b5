"""Sets up a process that computes, before it imports JAX: its garbage collector and XLA's flags.

`xla_cpu_flatten_after_fusion` gives each fusion of a CPU program its own computation. A step of
ResNet-50 takes 5 % less time; other networks take as long as before (results/README.md, "Batch
normalisation and XLA's fusions").
"""

import gc
import os

FLAG = "--xla_backend_extra_options"
# New objects until Python looks for cycles among them; its own number is 700 to 2,000. Importing
# and tracing make millions of objects that stay: a tenth of the time to the first step is saved.
NEW_OBJECTS = 100_000


def set_up_process() -> None:
    """For experiments. Call it before JAX looks for devices, which is when XLA reads its flags.

    Commands only set the flags: cycles of a server's requests hold the pictures that were sent.
    """
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
    set_xla_flags()


def set_xla_flags() -> None:
    """Adds the flag to XLA_FLAGS, unless such options are set already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=xla_cpu_flatten_after_fusion".strip()
