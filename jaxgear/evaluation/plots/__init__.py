"""Figures: rows, predictions or runs in, PNG out. The only users of matplotlib.

figures.py is where to start: curves and grids. tiles.py makes grids of images; compare.py sets runs
beside each other. The names here are those that a notebook needs.
"""

from jaxgear.evaluation.plots.compare import curves_beside
from jaxgear.evaluation.plots.figures import Tile, confusion, curves, grid
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
