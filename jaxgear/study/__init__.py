"""Trains variants of an experiment with several seeds: fields to vary in, the best variant out.

study.py is where to start: it plans trials, runs them and answers. variants.py reads what to vary;
trials.py keeps the trials in Optuna's storage; executors.py trains one of them; answer.py says
which variant is best; rate_finder.py suggests a learning rate.
"""

from jaxgear.study.executors import Command, Function
from jaxgear.study.study import study

__all__ = ["Command", "Function", "study"]
