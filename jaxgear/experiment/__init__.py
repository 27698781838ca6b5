"""What a researcher writes, and how it is trained: a `Config` and a recipe in, a run folder out.

recipe.py is where to start: what is decided. run.py trains it; assembly.py puts data and recipe
together; conclusion.py hands the best epoch on; diagnosis.py says what cannot work, before step 0.
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
