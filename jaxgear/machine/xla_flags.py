"""Sets XLA's flags before JAX starts.

`xla_cpu_flatten_after_fusion` gives each fusion of a CPU program its own computation. A step of
ResNet-50 takes 5 % less time; other networks take as long as before (results/README.md, "Batch
normalisation and XLA's fusions").
"""

import os

FLAG = "--xla_backend_extra_options"


def set_xla_flags() -> None:
    """Adds the flag to XLA_FLAGS, unless such options are set already.

    Call it before JAX looks for devices: that is when XLA reads its flags.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=xla_cpu_flatten_after_fusion".strip()
