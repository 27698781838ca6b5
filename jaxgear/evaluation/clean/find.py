"""Finds suspicious labels and pictures of a folder: `find_suspicious(folder, backbone, size)`.

A classifier scores each image. It was trained on other images, and on no near-duplicate of it.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxgear.data.dataset import Split
from jaxgear.data.folder import (
    Column,
    Folder,
    Record,
    distinct_groups,
    grouped,
    labels_of,
    mixed,
    stored_pictures,
)
from jaxgear.data.splits import near_duplicate_groups
from jaxgear.errors import DataError
from jaxgear.evaluation.clean import confident, outliers, probabilities, quality
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.models.features import compute_features
from jaxgear.models.pretrained import Backbone
from jaxgear.text import stable_key

KINDS = ("label", "duplicate", "outlier", "quality")
# Scores of outliers and of poor pictures end here, where those of probably wrong labels begin.
MOST = 0.5


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """A picture to look at. A picture has at most one of each kind."""

    record: Record
    label: str
    kind: str  # one of KINDS
    score: float  # 0 to 1, the worst
    suggested: str  # a class, or "" where there is nothing to suggest
    reason: str  # for people
    confident: bool = False  # whether the confident joint has this label as a wrong one
    beside: Record | None = None  # of a duplicate: a near-duplicate with another label


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found in a folder."""

    folder: Folder
    groups: int  # of near-duplicates; most hold one picture
    suspicions: tuple[Suspicion, ...]  # the worst first
    estimated: float  # number of wrong labels, by the confident joint
    unjudged: tuple[str, ...]  # classes of which the label of a picture could not be judged

    def counts(self) -> dict[str, int]:
        """The number of suspicions of each kind."""
        counts = Counter(suspicion.kind for suspicion in self.suspicions)
        return {kind: counts[kind] for kind in KINDS}


def find_suspicious(folder: Folder, backbone: Backbone, size: int) -> Findings:
    """Looks at all records of a folder, by features of `backbone` at `size` pixels.

    Copies of a picture in two classes are wanted here: do not call `require_clean` before.

    Raises:
        DataError: no usable picture, or a file changed since it was checked.
    """
    if not folder.records:
        raise DataError(f"{folder.root}: no usable picture; `jaxgear check` lists the reasons")
    keep_compiled()
    labels = labels_of(folder.records)
    split = Split(stored_pictures(folder, size), labels, folder.records)
    features = compute_features(backbone, split)[:, 0]
    poor = quality.find_poor(folder)
    found = judge(folder, features, near_duplicate_groups(folder.records))
    ranked = sorted((*found.suspicions, *_poor(folder, poor)), key=_worst_first)
    return dataclasses.replace(found, suspicions=tuple(ranked))


def judge(folder: Folder, features: Float[np.ndarray, "N D"], groups: Sequence[str]) -> Findings:
    """The findings that follow from features and groups: all kinds but `quality`."""
    labels, groups = labels_of(folder.records), grouped(groups)
    folds = probabilities.assign_folds(groups)
    probs, judged = probabilities.out_of_sample(features, labels, folds, len(folder.classes))
    joint = confident.confident_joint(probs[judged], labels[judged])
    found = (
        *_wrong_labels(folder, labels, probs, judged),
        *_duplicates(folder, labels, probs, groups),
        *_outliers(folder, outliers.distances(features, groups.values)),
    )
    return Findings(
        folder=folder,
        groups=distinct_groups(folder.records, groups),
        suspicions=tuple(sorted(found, key=_worst_first)),
        estimated=confident.estimated_errors(joint, labels[judged]),
        unjudged=tuple(folder.classes[label] for label in np.unique(labels[~judged])),
    )


def _worst_first(suspicion: Suspicion) -> tuple:
    return -suspicion.score, KINDS.index(suspicion.kind), stable_key(suspicion.record.path)


def _wrong_labels(
    folder: Folder,
    labels: Int[np.ndarray, " N"],
    probs: Float[np.ndarray, "N K"],
    judged: Bool[np.ndarray, " N"],
) -> list[Suspicion]:
    """Pictures of which another class is likelier than the label.

    The confident joint alone holds two thirds to nine tenths of wrong labels that were put in on
    purpose (scripts/label_errors.py), so it does not limit the list.
    """
    suggested = probs.argmax(axis=1)
    score = confident.suspicion(probs, labels, suggested)
    least = confident.thresholds(probs[judged], labels[judged])
    sure = confident.confident_class(probs, least) == suggested
    found = []
    for row in np.flatnonzero(judged & (suggested != labels)):
        label, other = folder.classes[labels[row]], folder.classes[suggested[row]]
        reason = f"{other} {probs[row, suggested[row]]:.2f}, {label} {probs[row, labels[row]]:.2f}"
        reason += ", confident" if sure[row] else ", unsure"
        found.append(
            Suspicion(
                record=folder.records[row],
                label=label,
                kind="label",
                score=float(score[row]),
                suggested=other,
                reason=reason,
                confident=bool(sure[row]),
            )
        )
    return found


def _duplicates(
    folder: Folder,
    labels: Int[np.ndarray, " N"],
    probs: Float[np.ndarray, "N K"],
    groups: Column,
) -> list[Suspicion]:
    """All pictures of each group of near-duplicates with several labels.

    The suggestion is the label of the group with the highest mean probability.
    """
    own, members = labels[groups.runs.rows], defaultdict(list)
    for row in mixed(groups.runs, own, own).tolist():  # of several labels: a few
        members[groups.values.item(row)].append(row)
    found = []
    for rows in members.values():
        given = np.unique(labels[rows])
        mean = probs[rows].mean(axis=0)
        best = max(given, key=lambda label: mean[label])
        for row in rows:
            rival = max((other for other in given if other != labels[row]), key=mean.__getitem__)
            beside = min(
                (r for r in rows if labels[r] != labels[row]), key=lambda r: -mean[labels[r]]
            )
            record, other = folder.records[row], folder.records[beside]
            same = "same bytes as" if record.sha256 == other.sha256 else "near-duplicate of"
            found.append(
                Suspicion(
                    record=record,
                    label=folder.classes[labels[row]],
                    kind="duplicate",
                    score=float((1 + mean[rival] - mean[labels[row]]) / 2),
                    suggested=folder.classes[best],
                    reason=f"{same} {other.path}",
                    beside=other,
                )
            )
    return found


def _outliers(folder: Folder, found: Float[np.ndarray, " N"]) -> list[Suspicion]:
    most = outliers.limit(found)
    return [
        Suspicion(
            record=folder.records[row],
            label=folder.classes[folder.records[row].label],
            kind="outlier",
            score=float(MOST * (1 - most / found[row])),
            suggested="",
            reason=f"far from all others: distance {found[row]:.2f}, limit {most:.2f}",
        )
        for row in np.flatnonzero(found > most)
    ]


def _poor(folder: Folder, found: Sequence[tuple[Record, quality.Faults]]) -> list[Suspicion]:
    return [
        Suspicion(
            record=record,
            label=folder.classes[record.label],
            kind="quality",
            score=MOST * max(faults)[0],
            suggested="",
            reason=", ".join(words for _, words in sorted(faults, reverse=True)),
        )
        for record, faults in found
    ]
