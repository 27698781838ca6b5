"""A run folder: config, history, checkpoints, and a lock. What is written is whole or absent.

run.py is where to start. checkpoints.py is the only user of Orbax.
"""

from jaxgear.training.runs.run import Run, read_json

__all__ = ["Run", "read_json"]
