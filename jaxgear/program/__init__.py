"""A network as a program: a Flax module in, StableHLO out, which runs where Flax is not installed.

stablehlo.py is where to start. apply.py is how any Flax module is initialised and called;
checks.py refuses programs that could do more than compute.
"""

from jaxgear.program.stablehlo import (
    LIMIT,
    PLATFORMS,
    Program,
    Weights,
    deserialize,
    export,
    flat,
    running,
    structured,
)

__all__ = [
    "LIMIT",
    "PLATFORMS",
    "Program",
    "Weights",
    "deserialize",
    "export",
    "flat",
    "running",
    "structured",
]
