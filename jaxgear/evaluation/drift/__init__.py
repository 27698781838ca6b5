"""Whether new pictures look like those that a run knows: a run and a folder in, p-values out.

find.py is where to start. two_sample.py is the test, on the features of network_features.py;
sheet.py draws the most foreign pictures.
"""

from jaxgear.evaluation.drift.find import Drift, Foreign, find_drift

__all__ = ["Drift", "Foreign", "find_drift"]
