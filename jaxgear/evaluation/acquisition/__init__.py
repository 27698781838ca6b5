"""Which new pictures to label next: files and the network of a run in, pictures with scores out.

choose.py is where to start. candidates.py leaves out what need not be labelled; ranking.py orders
the others. Scores of this kind are called acquisition functions.
"""

from jaxgear.evaluation.acquisition.candidates import Candidates, find_candidates
from jaxgear.evaluation.acquisition.choose import Choice, choose

__all__ = ["Candidates", "Choice", "choose", "find_candidates"]
