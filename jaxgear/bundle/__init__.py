"""A trained model to share: a folder of data, never code.

bundle.py is where to start. reading.py reads and checks the files.
"""

from jaxgear.bundle.bundle import Bundle
from jaxgear.bundle.reading import MAX_SIZE

__all__ = ["MAX_SIZE", "Bundle"]
