"""What XLA is told before a program starts it.

`xla_cpu_flatten_after_fusion` gives each fusion of a CPU program a computation of its own: a step
of ResNet-50 takes 5 % less time, of other networks as long as before (results/README.md, "Batch
normalisation and XLA's fusions").
"""

import os

FLAG = "--xla_backend_extra_options"


def set_xla_flags() -> None:
    """Adds it to XLA_FLAGS, where nobody has chosen such options already.

    To be called before JAX looks for devices, which is when XLA reads them.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if FLAG not in given:
        os.environ["XLA_FLAGS"] = f"{given} {FLAG}=xla_cpu_flatten_after_fusion".strip()
