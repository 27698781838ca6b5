"""Predictions as tables for programs, written as they come."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from jaxgear.outputs import Output
from jaxgear.prediction.predictor import Prediction
from jaxgear.text import text_of

BEFORE, AFTER = ("path", "class", "probability"), ("score", "refused")
PREFIX = "class:"  # of the column of a class that would be taken for another column


class CsvTable:
    """Columns `path, class, probability`, one a class, `score` and `refused` (true or false);
    pictures that were read. The class of a refused one is `none`, and its probability that of the
    likeliest class.
    """

    def __init__(self, output: Output, classes: Sequence[str]):
        self._output, self._classes = output, classes
        self._write([*BEFORE, *map(column_of, classes), *AFTER])

    def add(self, one: Prediction) -> None:
        """A row, unless the picture was unreadable."""
        if one.probs is not None:
            probs = [f"{p:.6f}" for p in one.probs]
            best = int(one.probs.argmax())
            cells = [text_of(one.path), one.name(self._classes), probs[best], *probs]
            self._write([*cells, f"{one.score:.6f}", "true" if one.refused else "false"])

    def end(self) -> None:
        """Nothing is left to write."""

    def _write(self, cells: list[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._output.write(line.getvalue())


def column_of(name: str) -> str:
    """The column of a class: its name, unless that is, in any case, the name of another column."""
    taken = name.casefold() in (*BEFORE, *AFTER) or name.casefold().startswith(PREFIX)
    return PREFIX + name if taken else name


class JsonTable:
    """`{"predictions": [...], "unreadable": [{"path", "reason"}, ...]}`, entries as `as_json`."""

    def __init__(self, output: Output, classes: Sequence[str]):
        self._output, self._classes = output, classes
        self._unreadable: list[dict[str, str]] = []
        self._before = '{"predictions": [\n'

    def add(self, one: Prediction) -> None:
        """An entry."""
        if one.error is not None:
            self._unreadable.append({"path": text_of(one.path), "reason": one.error})
            return
        entry = json.dumps(as_json(one, self._classes), ensure_ascii=False, allow_nan=False)
        self._output.write(self._before + entry)
        self._before = ",\n"

    def end(self) -> None:
        """The closing part; without it the file is no JSON."""
        start = "" if self._before == ",\n" else self._before
        unreadable = json.dumps(self._unreadable, ensure_ascii=False)
        self._output.write(f'{start}\n], "unreadable": {unreadable}}}\n')


def as_json(one: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """A picture that was read: class (`none` where it is refused), probabilities, score, hash,
    split of the model's data.
    """
    best = int(one.probs.argmax())
    probs = [round(float(p), 6) for p in one.probs]
    return {
        "path": text_of(one.path),
        "class": one.name(classes),
        "probability": probs[best],
        "probabilities": dict(zip(classes, probs, strict=True)),
        "score": round(one.score, 6),
        "refused": one.refused,
        "sha256": one.sha256,
        "side": one.split,
    }
