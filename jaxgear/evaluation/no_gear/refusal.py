"""Whether a picture shows gear at all: a score of each picture, and the least that is accepted.

On tables of logits, and of features where a score needs them. A larger score is more
like gear. Bundles use the largest logit (`Bundle.score`); the others are what scripts/not_gear.py
compares it with.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxgear.bundle import Bundle

# Of pasted validation pictures, by the choice of a bundle's threshold. Plain ones are nearly all
# above it, so that a share of both would refuse twice as many of the pasted ones.
ACCEPTED = 0.95
ACCEPTS_ALL = "takes every picture for gear: it was trained without --backgrounds"


def acceptance(bundle: Bundle, logits: Float[np.ndarray, "N K"]) -> dict[str, Any]:
    """The fields of `test.json` about pictures of gear: the share that `bundle` takes for gear, and
    the score from which it does (None: it takes all).
    """
    accepted = [not bundle.refuses(score) for score in bundle.score(logits)]
    return {"accepted": sum(accepted) / len(accepted), "accept_from": bundle.accept_from}


def promise(bundle: Bundle) -> str:
    """What share of gear the threshold of a bundle accepts, by kind of picture."""
    shares = [f"{share:.0%} of {kind}" for kind, share in bundle.accepted_shares().items()]
    known = f"accepts {' and '.join(shares)} validation pictures" if shares else "was set by hand"
    return (
        f"its threshold {known}, and fewer of real outdoor photographs, which were not there to "
        "choose it"
    )
