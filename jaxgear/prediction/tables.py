"""Tables of predictions as CSV and JSON, written row by row."""

import json
from collections.abc import Sequence
from typing import Any

from jaxgear.data.crops import SIDES, WHOLE, parted
from jaxgear.outputs import Output
from jaxgear.prediction.predictor import Prediction
from jaxgear.text import text_of, to_csv

BEFORE, AFTER = ("path", "class", "probability"), ("score", "refused")
PREFIX = "class:"  # before the name of a class that is also the name of another column


class CsvTable:
    """CSV of the images that were read: `path, class, probability`, a column per class, `score`,
    `refused` (true or false). A refused image has class `none` and the probability of its likeliest
    class.
    """

    def __init__(self, output: Output, classes: Sequence[str]):
        self._output, self._classes = output, classes
        self._write([*BEFORE, *map(column_of, classes), *AFTER])

    def add(self, prediction: Prediction) -> None:
        """Writes a row, unless the image was unreadable."""
        if prediction.probs is not None:
            probs = [f"{p:.6f}" for p in prediction.probs]
            best = int(prediction.probs.argmax())
            name = prediction.name(self._classes)
            refused = "true" if prediction.refused else "false"
            cells = [text_of(prediction.path), name, probs[best], *probs]
            self._write([*cells, f"{prediction.score:.6f}", refused])

    def end(self) -> None:
        """Does nothing: a CSV needs no end."""

    def _write(self, cells: Sequence[str]) -> None:
        self._output.write(to_csv([cells]))


class CropsTable(CsvTable):
    """CSV of crops: `path` of the photograph, the sides of the box as fractions of its width and
    height, `class`, `probability`. A photograph without gear has class `none` and a box around all.
    """

    COLUMNS = ("path", *SIDES, "class", "probability")

    def __init__(self, output: Output, classes: Sequence[str]):
        self._output, self._classes = output, classes
        self._write(self.COLUMNS)

    def add(self, prediction: Prediction) -> None:
        """Writes a row, unless the photograph was unreadable."""
        if prediction.probs is not None:
            path, box = parted(prediction.path)
            sides = [f"{side:.4f}" for side in box or WHOLE]
            name = prediction.name(self._classes)
            self._write([text_of(path), *sides, name, f"{prediction.probs.max():.6f}"])


def column_of(name: str) -> str:
    """The column of a class: its name, with `PREFIX` if that is another column's in any case."""
    taken = name.casefold() in (*BEFORE, *AFTER) or name.casefold().startswith(PREFIX)
    return PREFIX + name if taken else name


class JsonTable:
    """`{"predictions": [...], "unreadable": [{"path", "reason"}, ...]}` with `as_json` entries."""

    def __init__(self, output: Output, classes: Sequence[str]):
        self._output, self._classes = output, classes
        self._unreadable: list[dict[str, str]] = []
        self._before = '{"predictions": [\n'

    def add(self, prediction: Prediction) -> None:
        """Writes an entry, or keeps an unreadable file for the end."""
        if prediction.error is not None:
            unreadable = {"path": text_of(prediction.path), "reason": prediction.error}
            self._unreadable.append(unreadable)
            return
        entry = json.dumps(as_json(prediction, self._classes), ensure_ascii=False, allow_nan=False)
        self._output.write(self._before + entry)
        self._before = ",\n"

    def end(self) -> None:
        """Writes the unreadable files and closes the JSON."""
        start = "" if self._before == ",\n" else self._before
        unreadable = json.dumps(self._unreadable, ensure_ascii=False)
        self._output.write(f'{start}\n], "unreadable": {unreadable}}}\n')


def as_json(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """The entry of an image that was read; its class is `none` if it was refused."""
    best = int(prediction.probs.argmax())
    probs = [round(float(p), 6) for p in prediction.probs]
    return {
        "path": text_of(prediction.path),
        "class": prediction.name(classes),
        "probability": probs[best],
        "probabilities": dict(zip(classes, probs, strict=True)),
        "score": round(prediction.score, 6),
        "refused": prediction.refused,
        "sha256": prediction.sha256,
        "side": prediction.split,
    }
