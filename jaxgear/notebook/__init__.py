"""What a Jupyter notebook shows: tables of facts, and outputs that update in place.

tables.py is where to start: how objects show themselves. live.py tells whether there is a notebook,
and updates an output; progress.py has a bar for terminals too. They import IPython only where a
notebook has done so already.
"""

from jaxgear.notebook.live import Bar, Live, Png, in_notebook
from jaxgear.notebook.tables import Facts, bars, crossed, facts, picture, table

__all__ = [
    "Bar",
    "Facts",
    "Live",
    "Png",
    "bars",
    "crossed",
    "facts",
    "in_notebook",
    "picture",
    "table",
]
