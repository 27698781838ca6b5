"""Predictions as tasks that Label Studio imports; data/labels/label_studio.py reads its export.

https://labelstud.io/guide/tasks: a task is `{"data": {...}, "predictions": [...]}`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from jaxgear.outputs import Output
from jaxgear.prediction.predictor import NONE, Prediction
from jaxgear.text import text_of

CONTROL, OBJECT = "class", "image"  # names of the tags in `interface`


class LabelStudioTasks:
    """A JSON list with a task for each image that was read.

    Label Studio shows the files with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/ (or the folder `root`).
    """

    def __init__(self, output: Output, classes: Sequence[str], root: Path = Path("/")):
        self._output, self._classes, self._root = output, classes, root
        self._before = "[\n"

    def add(self, prediction: Prediction) -> None:
        """Writes a task, unless the image was unreadable."""
        if prediction.probs is None:
            return
        path = os.path.normpath(Path(prediction.path).absolute())
        place = Path(path).relative_to(self._root).as_posix()
        choice = {
            **{"from_name": CONTROL, "to_name": OBJECT, "type": "choices"},
            "value": {"choices": [prediction.name(self._classes)]},
        }
        task = {
            "data": {
                OBJECT: f"/data/local-files/?d={quote(text_of(place))}",
                **{"path": text_of(path), "sha256": prediction.sha256},
            },
            "predictions": [
                {
                    "model_version": "jaxgear",
                    "score": round(float(prediction.probs.max()), 6),
                    "result": [choice],
                }
            ],
        }
        self._output.write(self._before + json.dumps(task, ensure_ascii=False))
        self._before = ",\n"

    def end(self) -> None:
        """Closes the list."""
        self._output.write(("[" if self._before == "[\n" else "") + "\n]\n")


def interface(classes: Sequence[str]) -> str:
    """The labelling interface (XML) of a project for these tasks."""
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in (*classes, NONE))
    return (
        f'<View><Image name="{OBJECT}" value="${OBJECT}"/>'
        f'<Choices name="{CONTROL}" toName="{OBJECT}">{choices}</Choices></View>'
    )
