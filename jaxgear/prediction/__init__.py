"""A bundle and new pictures in, classes with probabilities out.

predictor.py is where to start. tables.py writes CSV and JSON; export.py makes a file that jax alone
runs.
"""

from jaxgear.prediction.predictor import NONE, Prediction, Predictor, open_folder, predict

__all__ = ["NONE", "Prediction", "Predictor", "open_folder", "predict"]
