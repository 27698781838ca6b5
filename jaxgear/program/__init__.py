"""Exports a network as a program: a Flax module in, StableHLO out, which needs no Flax to run.

stablehlo.py is where to start. apply.py initialises and calls any Flax module; checks.py refuses
programs that could do more than compute; variables.py names variables; flops.py counts the work of
a traced function.
"""

from jaxgear.program.flops import flops
from jaxgear.program.stablehlo import (
    LIMIT,
    PLATFORMS,
    Program,
    deserialize,
    export,
    running,
)
from jaxgear.program.variables import Weights, flat, structured

__all__ = [
    "LIMIT",
    "PLATFORMS",
    "Program",
    "Weights",
    "deserialize",
    "export",
    "flat",
    "flops",
    "running",
    "structured",
]
