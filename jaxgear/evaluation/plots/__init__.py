"""Figures: rows, predictions or runs in, PNG out. The only users of matplotlib.

figures.py is where to start: curves and grids. tiles.py makes the pictures of a grid.
"""
