"""Learning from images without labels, as a term of the loss.

The network names each image as it is. Where it is sure, its answer is the target of an augmented
view (FixMatch, Sohn et al. 2020). Nothing is kept between steps, so a run resumes to the bit.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jaxgear.data.unlabelled import NO_LABEL, hidden
from jaxgear.training.state import Pseudo


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """The term: `weight` times the mean loss of the images without labels in a batch; an image of
    which the network is not sure has loss 0.
    """

    threshold: float = 0.8
    """Least probability of the likeliest class."""
    weight: float = 1.0
    beside: float = 0.5
    """Images without labels in a batch, for each labelled one."""
    start: int = 0
    """The first step of the term."""

    def rows(self, batch_size: int, unit: int) -> int:
        """Images without labels beside `batch_size` labelled ones: a multiple of `unit`."""
        return max(1, round(self.beside * batch_size / unit)) * unit

    def label(
        self,
        logits: Float[Array, "U K"],
        step: Int[Array, ""],
        labelled: Float[Array, ""],
        beside: int,
    ) -> tuple[Float[Array, "U K"], Float[Array, " U"]]:
        """Targets of images without labels, and their weights beside labelled ones of weight 1.

        Args:
            logits: of the images as they are.
            step: updates so far.
            labelled: sum of the weights of the batch's labelled images.
            beside: images without labels in the whole batch.
        """
        probs = jax.nn.softmax(logits.astype(jnp.float32))
        sure = (probs.max(axis=-1) >= self.threshold) & (step >= self.start)
        targets = jax.nn.one_hot(probs.argmax(axis=-1), logits.shape[-1])
        return targets, sure * (self.weight * labelled / beside)


Guess = Callable[[Num[Array, "U ..."]], tuple[Float[Array, "U K"], Float[Array, " U"]]]


def sums(
    targets: Float[Array, "B K"], weight: Float[Array, " B"], label: Int[Array, " B"]
) -> Pseudo:
    """How many images of a batch had no label, were used, and got the label that is hidden."""
    used = (label < 0) & (weight > 0)
    checked = used & (label != NO_LABEL)
    right = checked & (hidden(targets.argmax(axis=-1)) == label)
    parts = ((label < 0), used, checked, right)
    return Pseudo(*(rows.sum(dtype=jnp.float32) for rows in parts))
