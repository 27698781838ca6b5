"""Predicts: a bundle and new images in, classes with probabilities out.

predictor.py is where to start. tables.py writes CSV and JSON; export.py writes a file that needs
only jax.
"""

from jaxgear.prediction.predictor import NONE, Prediction, Predictor, open_labelled, predict

__all__ = ["NONE", "Prediction", "Predictor", "open_labelled", "predict"]
