"""A trained model to hand on: a folder of data, never code.

bundle.py is where to start.
"""

from jaxgear.bundle.bundle import MAX_SIZE, Bundle

__all__ = ["MAX_SIZE", "Bundle"]
