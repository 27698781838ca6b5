"""Suspicious labels and pictures: a folder and a backbone in, a list out, the worst first.

find.py is where to start. probabilities.py, confident.py, outliers.py and quality.py measure;
page.py shows what was found.
"""

from jaxgear.evaluation.clean.find import KINDS, Findings, Suspicion, find_suspicious

__all__ = ["KINDS", "Findings", "Suspicion", "find_suspicious"]
