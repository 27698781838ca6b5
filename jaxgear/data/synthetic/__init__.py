"""The drawn set: pictures of gear that need no download, for a first run and for tests.

drawn.py is where to start: the classes, and the folder that is written.
"""

from jaxgear.data.synthetic.drawn import CLASSES, write_drawn

__all__ = ["CLASSES", "write_drawn"]
