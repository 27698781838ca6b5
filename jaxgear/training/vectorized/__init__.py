"""Several runs as one program: runs in, the states and history rows of each out, as if alone.

rounds.py is where to start: it trains an epoch of every lane (lane.py), which is a run, at a time.
program.py has the compiled steps; join.py joins steps that differ in numbers alone.
"""

from jaxgear.training.vectorized.lane import Lane, grouped
from jaxgear.training.vectorized.rounds import Rounds

__all__ = ["Lane", "Rounds", "grouped"]
