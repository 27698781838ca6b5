"""Compares scores that tell gear from no gear: AUROC, and the share refused at 95 % accepted.

    python -m scripts.not_gear RUN --data FOLDER --gear DIR... --not-gear SCENES

Thresholds are chosen on the run's validation split and the folders of `--choose`. Figures are
measured on the test split, the folders of `--gear`, and SCENES.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxgear.bundle import Bundle
from jaxgear.cli import exit_with
from jaxgear.data.folder import Refused, pixels
from jaxgear.data.images import load_letterboxed, read_bytes
from jaxgear.data.sources import find_pictures
from jaxgear.errors import CheckpointError, DataError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.no_gear import evidence
from jaxgear.evaluation.own_pictures import only, open_source
from jaxgear.paths import path_argument

ACCEPTED = 0.95  # share of the images that choose the thresholds


def energy(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """log sum exp of the logits, the negative energy (Liu et al. 2020)."""
    z = logits.astype(np.float64)
    most = z.max(axis=1)
    return most + np.log(np.exp(z - most[:, None]).sum(axis=1))


def largest_less_mean(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The largest logit less the mean logit. Training on backgrounds with uniform targets makes it
    small for images without gear (`paste.outlier_exposure`).
    """
    return (logits.max(axis=1) - logits.mean(axis=1)).astype(np.float64)


def mean_logit(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The mean logit: the evidence that evaluation/no_gear/evidence.py adds to all logits."""
    return logits.mean(axis=1).astype(np.float64)


def confidence(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """Log-probability of the likeliest class (Hendrycks & Gimpel 2017, up to the logarithm)."""
    return logits.max(axis=1) - energy(logits)


def mahalanobis(
    features: Float[np.ndarray, "N D"],
    known: Float[np.ndarray, "M D"],
    labels: Int[np.ndarray, " M"],
) -> Float[np.ndarray, " N"]:
    """Minus the distance to the nearest class mean of `known` features, under the covariance within
    classes (Lee et al. 2018), shrunk by a tenth to a multiple of the identity.
    """
    known = known.astype(np.float64)
    names, place = np.unique(labels, return_inverse=True)
    means = np.stack([known[place == i].mean(axis=0) for i in range(len(names))])
    within = known - means[place]
    covariance = within.T @ within / len(known)
    size = np.trace(covariance) / len(covariance)
    precision = np.linalg.inv(0.9 * covariance + 0.1 * size * np.eye(len(covariance)))
    offset = features.astype(np.float64)[:, None] - means  # [N, K, D]
    return -np.einsum("nkd,de,nke->nk", offset, precision, offset, optimize=True).min(axis=1)


def nearest(
    features: Float[np.ndarray, "N D"], known: Float[np.ndarray, "M D"], k: int = 5
) -> Float[np.ndarray, " N"]:
    """Minus the distance to the k-th nearest of `known`, features scaled to length 1 (Sun et al.
    2022).
    """
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, known))
    return -np.sqrt(np.maximum(2 - 2 * np.partition(a @ b.T, -k, axis=1)[:, -k], 0))


def threshold(scores: Float[np.ndarray, " N"], accepted: float = ACCEPTED) -> float:
    """The largest threshold that the share `accepted` of the scores reaches."""
    place = int(np.floor((1 - accepted) * len(scores)))
    return float(np.sort(scores)[place])


def auroc(gear: Float[np.ndarray, " N"], other: Float[np.ndarray, " M"]) -> float:
    """The chance that an image of gear scores higher than one without; ties count half."""
    below = np.searchsorted(np.sort(other), gear, side="left")
    up_to = np.searchsorted(np.sort(other), gear, side="right")
    return float((below + up_to).sum() / (2 * len(gear) * len(other)))


def network(bundle: Bundle) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from images, u8 [N, S, S, 3], to features [N, D] and logits [N, K]."""
    features_of = evidence.features_of(bundle.program, bundle.weights)
    head = bundle.program.head
    if head is None:
        raise CheckpointError("the network has no dense layer that gives its logits")

    def both(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = features_of(images)
        return features, evidence.logits_of(bundle.weights, head, features)

    return both


def compare(
    run: Path, data: str, gear: list[Path], choose: list[Path], other: Path
) -> dict[str, tuple[float, float, float]]:
    """Name of a score -> AUROC, share of gear accepted, share of the rest refused."""
    finished, bundle = FinishedRun.read(run), Bundle.load(run)
    folder = open_source(finished, data or None, bundle.size)
    both = network(bundle)

    def read(files: list[Path | Refused]) -> tuple[np.ndarray, np.ndarray]:
        if bad := [file for file in files if isinstance(file, Refused)]:
            raise DataError(f"{bad[0].path}: {bad[0].reason}")
        pictures = [load_letterboxed(read_bytes(f, str(f)), bundle.size, str(f)) for f in files]
        return both(np.stack(pictures))

    def of_split(name: str, others: list[Path] = ()) -> tuple[np.ndarray, np.ndarray]:
        own = both(pixels(only(folder, finished, finished.split(name), data), bundle.size))
        more = [read(find_pictures(others))] if others else []
        return tuple(np.concatenate(parts) for parts in zip(own, *more, strict=True))

    known, _ = of_split("train")
    labels = np.array([bundle.classes.index(p.name) for p in finished.split("train")], np.int32)
    val, test, rest = of_split("val", choose), of_split("test", gear), read(find_pictures([other]))
    scores = {
        "largest logit": lambda f, z: bundle.score(z),
        "largest less mean logit": lambda f, z: largest_less_mean(z),
        "mean logit": lambda f, z: mean_logit(z),
        "confidence": lambda f, z: confidence(z / bundle.temperature),
        "energy": lambda f, z: energy(z),
        "Mahalanobis": lambda f, z: mahalanobis(f, known, labels),
        "5th nearest feature": lambda f, z: nearest(f, known),
    }
    figures = {}
    for name, score in scores.items():
        least = threshold(score(*val), ACCEPTED)
        inside, outside = score(*test), score(*rest)
        figures[name] = (
            auroc(inside, outside),
            float((inside >= least).mean()),
            float((outside < least).mean()),
        )
    return figures


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=path_argument)
    parser.add_argument("--data", default="", help="the run's pictures, if they have moved")
    parser.add_argument("--gear", type=path_argument, nargs="*", default=[])
    parser.add_argument("--choose", type=path_argument, nargs="*", default=[])
    parser.add_argument("--not-gear", type=path_argument, required=True)
    arguments = parser.parse_args()

    def run() -> None:
        table = compare(
            arguments.run, arguments.data, arguments.gear, arguments.choose, arguments.not_gear
        )
        print("| score | AUROC | gear accepted | rest refused |\n|---|---|---|---|")
        for name, figures in table.items():
            print(f"| {name} |", " | ".join(f"{figure:.3f}" for figure in figures), "|")

    exit_with(run)


if __name__ == "__main__":
    main()
