"""The drawn set: images of gear that need no download, for first runs and tests.

drawn.py is where to start: it has the classes, and writes the folder.
"""

from jaxgear.data.synthetic.drawn import CLASSES, write_drawn

__all__ = ["CLASSES", "write_drawn"]
