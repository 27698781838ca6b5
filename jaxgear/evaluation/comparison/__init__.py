"""Compares runs: finished runs in, groups of one method, their figures and differences out.

groups.py is where to start: it groups runs that differ in the seed alone. differences.py says
whether a difference is more than luck.
"""

from jaxgear.evaluation.comparison.differences import (
    Difference,
    Spread,
    difference,
    probability_best,
    spread,
)
from jaxgear.evaluation.comparison.groups import MEASURES, Comparison, Group, compare, to_dict

__all__ = [
    "MEASURES",
    "Comparison",
    "Difference",
    "Group",
    "Spread",
    "compare",
    "difference",
    "probability_best",
    "spread",
    "to_dict",
]
