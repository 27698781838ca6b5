"""Figures: rows, predictions or runs in, PNG out. The only users of matplotlib.

figures.py is where to start: what figures share. learning_curves.py draws runs, alone and beside
each other; tiles.py makes grids of images. The names here are those that a notebook needs.
"""

from jaxgear.evaluation.plots.figures import Tile, confusion, grid
from jaxgear.evaluation.plots.learning_curves import curves, curves_beside
from jaxgear.evaluation.plots.tiles import filters, heat_map_grid, prediction_grid, training_grid

__all__ = [
    "Tile",
    "confusion",
    "curves",
    "curves_beside",
    "filters",
    "grid",
    "heat_map_grid",
    "prediction_grid",
    "training_grid",
]
