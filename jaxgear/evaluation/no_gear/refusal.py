"""Whether an image shows gear at all: it does if its score (`Bundle.score`) reaches a threshold.

scripts/not_gear.py compares this score with others.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxgear.bundle import Bundle
from jaxgear.data.augment import Bank
from jaxgear.data.composites import scene_split
from jaxgear.data.dataset import Dataset, Split
from jaxgear.evaluation.no_gear import evidence
from jaxgear.program import Program, Weights

# The threshold of a bundle accepts this share of the pasted validation images. A share of plain and
# pasted images together would refuse most real outdoor gear (results/README.md).
ACCEPTED = 0.95
# Of images without labels, those that score above this share of the backgrounds count as gear. That
# keeps nearly all real outdoor gear (results/README.md, "Gear among pictures without labels"), most
# of which the threshold of a bundle refuses.
BACKGROUNDS = 0.95
ACCEPTS_ALL = "takes every picture for gear: it was trained without --backgrounds"


def acceptance(bundle: Bundle, logits: Float[np.ndarray, "N K"]) -> dict[str, Any]:
    """Fields of `test.json` about images of gear: the share that `bundle` accepts as gear, and its
    threshold (None: it accepts all).
    """
    accepted = [not bundle.refuses(score) for score in bundle.score(logits)]
    return {"accepted": sum(accepted) / len(accepted), "accept_from": bundle.accept_from}


def show_gear(
    split: Split,
    program: Program,
    weights: Weights,
    dataset: Dataset,
    bank: Bank,
    features_of: Callable[[Split], evidence.Features] | None = None,
) -> Bool[np.ndarray, " N"]:
    """Which images of `split` look more like gear than most backgrounds do.

    If the network ends in no dense layer, all of them.

    Args:
        dataset: holds the images of gear that tell what gear looks like.
        features_of: computes the inputs of the last layer faster than `program`; or None.
    """
    if program.head is None:
        return np.ones(len(split.labels), bool)
    features_of = features_of or evidence.of_splits(program, weights)
    weights = evidence.fitted(weights, program.head, dataset, bank, features_of)

    def score(split: Split) -> Float[np.ndarray, " N"]:
        return evidence.logits_of(weights, program.head, features_of(split)).max(axis=1)

    # Other views than those that the evidence knows.
    scenes = scene_split(bank, dataset.size, evidence.SHOWN, seed=1)
    return score(split) > np.quantile(score(scenes), BACKGROUNDS)


def promise(bundle: Bundle) -> str:
    """A clause: the share of gear that the threshold of a bundle accepts, by kind of image."""
    shares = [f"{share:.0%} of {kind}" for kind, share in bundle.accepted_shares().items()]
    known = f"accepts {' and '.join(shares)} validation pictures" if shares else "was set by hand"
    return (
        f"its threshold {known}; it accepts fewer real outdoor photographs, which had no part in "
        "choosing it"
    )
