"""Trains an experiment: a `Config` and a recipe in, a run folder out.

recipe.py is where to start: all that an experiment decides. run.py trains a recipe; assembly.py
joins recipe and data, which inputs.py opens; conclusion.py saves and tests the best epoch;
diagnosis.py names the faulty part of a recipe; config.py has the flags of every experiment, and
flags.py reads them.
"""

from jaxgear.experiment.config import Config, Count, Fraction, Positive, Range, Share, Size
from jaxgear.experiment.recipe import Data, Make, Recipe
from jaxgear.experiment.run import Experiment, start

__all__ = [
    "Config",
    "Count",
    "Data",
    "Experiment",
    "Fraction",
    "Make",
    "Positive",
    "Range",
    "Recipe",
    "Share",
    "Size",
    "start",
]
