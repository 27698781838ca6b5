"""Trains variants of an experiment with several seeds: fields to vary in, the best variant out.

study.py is where to start: it plans trials, runs them and answers. variants.py reads what to vary;
trials.py keeps the trials in Optuna's storage; executors.py and processes.py train them, and
vectorized.py several as one program; answer.py says which variant is best; rate_finder.py suggests
a learning rate.
"""

from jaxgear.study.executors import Function
from jaxgear.study.processes import Command, Vectorized
from jaxgear.study.study import study

__all__ = ["Command", "Function", "Vectorized", "study"]
