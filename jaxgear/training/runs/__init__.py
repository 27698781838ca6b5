"""A run folder: config, history, checkpoints, and a lock. Each file is complete or absent.

run.py is where to start: an open run. folder.py makes and describes its folder; checkpoints.py is
the only user of Orbax.
"""

from jaxgear.training.runs.folder import read_json
from jaxgear.training.runs.run import Run

__all__ = ["Run", "read_json"]
