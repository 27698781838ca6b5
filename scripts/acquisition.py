"""Compares strategies that choose pictures to label, by what a classifier learns from them.

    python -m scripts.acquisition GEAR WILD PHOTOGRAPHS [--weights FILE] [--csv FILE] [--plot PNG]

GEAR is a folder of catalogue photographs, WILD crops of gear in photographs (PHOTO_NUMBER.jpg),
PHOTOGRAPHS a folder of outdoor photographs. The classifier is logistic regression on features of a
frozen ResNet-50. Labels are given in rounds; after each the classifier is fitted again. Domains:

    wild       training split of GEAR, once plain and once pasted; pool: the crops of half of WILD's
               photographs; tested on those of the others
    pasted     half of the training split, plain; pool: the other half, pasted on photographs;
               tested on the validation split, pasted on other photographs
    catalogue  3 pictures a class; pool: the rest of the training split; tested on validation

It prints accuracy and mean recall at the end, what they are above those of random choice (mean and
standard deviation over seeds of the mean over rounds), and how many labels a strategy needs for the
accuracy of random choice in the middle and at the end, as a share of the labels of random choice.
Set OPENBLAS_NUM_THREADS=1: many threads make small products slower.
"""

import argparse
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgear.cli import exit_with
from jaxgear.data.composites import photographs
from jaxgear.data.dataset import Split, open_dataset
from jaxgear.data.folder import LazyPictures, read_folder, stored_pictures
from jaxgear.data.images import load_rgba
from jaxgear.evaluation.clean.probabilities import fit, unit_length
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.models.features import compute_features
from jaxgear.models.pretrained import Backbone, backbone_of
from jaxgear.outputs import outputs
from jaxgear.paths import path_argument
from jaxgear.text import to_csv
from scripts.outdoor_test import composite
from scripts.studies.acquisition import Point, draw, lines
from scripts.studies.strategies import STRATEGIES, Pool, Strategy

SIZE = 224  # pixels


class Labelled(NamedTuple):
    """N pictures: features of length 1, f32 [N, D], and labels, int [N]."""

    x: np.ndarray
    y: np.ndarray

    def rows(self, rows: np.ndarray) -> "Labelled":
        """Some of them."""
        return Labelled(self.x[rows], self.y[rows])


class Trial(NamedTuple):
    """One split of a domain: what is trained on from the start, the pool, and the test."""

    base: Labelled
    pool: Labelled
    test: Labelled


def photograph_of(name: str) -> str:
    """The photograph of a crop: `img_216` of `gloves/img_216_57.jpg`."""
    return re.sub(r"_\d+$", "", Path(name).stem)


def halves_by_photograph(names: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves of crops; all crops of a photograph are in one half.

    Photographs are dealt out in random order, each to the half that has fewer crops.
    """
    of_photograph: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        of_photograph.setdefault(photograph_of(name), []).append(row)
    halves: tuple[list[int], list[int]] = ([], [])
    order = sorted(of_photograph)
    rng = np.random.default_rng(seed)
    for place in rng.permutation(len(order)):
        min(halves, key=len).extend(of_photograph[order[place]])
    first, second = halves if rng.random() < 0.5 else halves[::-1]
    return np.sort(first), np.sort(second)


def pasted(split: Split, load, grounds: list[tuple[Path, np.ndarray]], seed: int) -> Split:
    """The objects of a split on photographs, made on access."""

    def image(row: int) -> np.ndarray:
        record = split.records[row]
        rng = np.random.default_rng((seed, int(record.sha256[:8], 16)))
        ground = grounds[rng.integers(len(grounds))][1]
        whole = composite(load_rgba(load(record), record.path), ground, rng)
        return np.asarray(whole.resize((SIZE, SIZE)).convert("RGB"))

    names = ",".join(path.name for path, _ in grounds)
    records = tuple(
        dataclasses.replace(
            record, sha256=hashlib.sha256(f"{record.sha256} {seed} {names}".encode()).hexdigest()
        )
        for record in split.records
    )
    return Split(LazyPictures((len(records), SIZE, SIZE, 3), image), split.labels, records)


def labelled(backbone: Backbone, split: Split) -> Labelled:
    """Features and labels of a split."""
    features = compute_features(backbone, split)[:, 0]
    return Labelled(unit_length(features), np.asarray(split.labels))


class Study:
    """The features of all domains."""

    def __init__(self, gear: Path, wild: Path, folder: Path, weights: str):
        backbone = backbone_of(weights)
        data = open_dataset(str(gear), size=SIZE, seed=0, on_bad="skip", say=lambda line: None)
        self.classes = data.classes
        crops = read_folder(wild, size=SIZE, min_classes=1)
        self.names = [record.path for record in crops.records]
        seen = {photograph_of(name) for name in self.names}
        train_grounds, test_grounds = (
            [(p, pixels) for p, pixels in photographs(folder, half) if p.stem not in seen]
            for half in ("train", "test")
        )
        train, val = data.split("train"), data.split("val")
        labels = np.array([data.classes.index(crops.classes[r.label]) for r in crops.records])
        self.train, self.val = labelled(backbone, train), labelled(backbone, val)
        wild_split = Split(stored_pictures(crops, SIZE), labels, crops.records)
        self.wild = labelled(backbone, wild_split)
        load = data.folder.read
        self.pasted_train = labelled(backbone, pasted(train, load, train_grounds, 1))
        self.pasted_val = labelled(backbone, pasted(val, load, test_grounds, 2))
        self.group = np.array([int(r.sha256[:8], 16) for r in train.records])

    def trial(self, domain: str, seed: int) -> Trial:
        """A split of a domain."""
        rng = np.random.default_rng(seed)
        if domain == "wild":
            pool, test = halves_by_photograph(self.names, seed)
            both = map(np.concatenate, zip(self.train, self.pasted_train, strict=True))
            return Trial(Labelled(*both), self.wild.rows(pool), self.wild.rows(test))
        if domain == "pasted":
            order = rng.permutation(len(self.train.y))
            base, pool = np.array_split(order, 2)
            return Trial(self.train.rows(base), self.pasted_train.rows(pool), self.pasted_val)
        chosen = np.concatenate(
            [
                rng.choice(np.flatnonzero(self.train.y == label), 3, replace=False)
                for label in range(len(self.classes))
            ]
        )
        rest = np.setdiff1d(np.arange(len(self.train.y)), chosen)
        return Trial(self.train.rows(chosen), self.train.rows(rest), self.val)


Head = tuple[np.ndarray, np.ndarray]  # kernel and bias


def rounds(
    trial: Trial, head: Head, strategy: Strategy, batch: int, most: int, seed: int
) -> Iterator[tuple[int, float, float]]:
    """Number of labels, accuracy and mean recall, before the first round and after each.

    `head`: fitted to the base.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(0, int)
    scale = np.float32(trial.base.x.shape[1] ** 0.5)
    while True:
        x = np.concatenate([trial.base.x, trial.pool.x[chosen]])
        y = np.concatenate([trial.base.y, trial.pool.y[chosen]])
        if len(chosen):
            head = fit(x * scale, y, len(head[1]), start=head)
        kernel, bias = head
        predicted = (trial.test.x * scale @ kernel + bias).argmax(axis=1)
        right = predicted == trial.test.y
        recall = np.mean([right[trial.test.y == label].mean() for label in np.unique(trial.test.y)])
        yield len(chosen), float(right.mean()), float(recall)
        if len(chosen) >= most:
            return
        rest = np.setdiff1d(np.arange(len(trial.pool.y)), chosen)
        logits = trial.pool.x[rest] * scale @ kernel + bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs = powers / powers.sum(axis=1, keepdims=True)
        pool = Pool(trial.pool.x[rest], probs, trial.pool.x[chosen], trial.base.x)
        picks = strategy(pool, min(batch, most - len(chosen)), rng)
        assert len(np.unique(picks)) == len(picks)
        chosen = np.concatenate([chosen, rest[picks]])


# domain -> (labels a round, labels at the end)
ROUNDS = {"wild": (8, 40), "pasted": (16, 160), "catalogue": (12, 120)}


def main(arguments: argparse.Namespace) -> None:
    """Measures all, and prints a line for each strategy."""
    keep_compiled()
    with outputs({"--csv": arguments.csv, "--plot": arguments.plot}) as files:
        study = Study(arguments.gear, arguments.wild, arguments.photographs, arguments.weights)
        points = []
        for domain in arguments.domain:
            batch, most = ROUNDS[domain]
            for seed in range(arguments.seeds):
                trial = study.trial(domain, seed)
                scale = np.float32(trial.base.x.shape[1] ** 0.5)
                head = fit(trial.base.x * scale, trial.base.y, len(study.classes))
                for name in arguments.strategy:
                    for row in rounds(trial, head, STRATEGIES[name], batch, most, seed):
                        points.append(Point(domain, name, seed, *row))
            print("\n".join(lines([p for p in points if p.domain == domain])), flush=True)
        if "--csv" in files:
            files["--csv"].write(to_csv([Point._fields, *points]))
        if "--plot" in files:
            files["--plot"].write(draw(points))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gear", type=path_argument)
    parser.add_argument("wild", type=path_argument)
    parser.add_argument("photographs", type=path_argument)
    parser.add_argument("--weights", default="")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--domain", nargs="+", default=list(ROUNDS), choices=list(ROUNDS))
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--csv", type=path_argument)
    parser.add_argument("--plot", type=path_argument)
    arguments = parser.parse_args()
    exit_with(lambda: main(arguments))
