"""Reads what people labelled in Label Studio (export as JSON or JSON_MIN) as corrections.

The tasks must be those of `jaxgear predict --label-studio`, whose data names path and sha256.
"""

from pathlib import Path
from typing import Any

from jaxgear.data.labels.corrections import MAX_BYTES, Correction
from jaxgear.errors import DataError
from jaxgear.files import from_json, read_regular

NONE = "none"  # the choice that keeps a picture out


def read_export(path: Path) -> tuple[Correction, ...]:
    """A correction for each annotation, in the order in which they were made.

    A class gives "add", which relabels a picture of the set; `none` gives "remove". Cancelled and
    empty annotations are left out.

    Raises:
        DataError: not such an export, or a task whose picture or class is unclear.
    """
    try:
        tasks = from_json(read_regular(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise DataError(f"{path}: cannot be read as an export of Label Studio ({reason})") from None
    if not isinstance(tasks, list):
        raise DataError(f"{path}: no export of Label Studio: expected a list of tasks")
    corrections = []
    for number, task in enumerate(tasks, 1):
        where = f"{path}, task {number}"
        try:
            corrections += _corrections(task, where)
        except (TypeError, KeyError, AttributeError, IndexError):
            raise DataError(f"{where}: not as Label Studio exports it") from None
    return tuple(sorted(corrections, key=lambda correction: correction.when))


def _corrections(task: dict[str, Any], where: str) -> list[Correction]:
    data = task.get("data", task)  # JSON_MIN has everything at the top
    if not (data.get("path") and data.get("sha256")):
        raise DataError(f"{where}: has no path and sha256; `predict --label-studio` writes both")
    corrections = []
    for annotation in task.get("annotations", [task]):
        if annotation.get("was_cancelled"):
            continue
        choices = _choices(annotation)
        if len(choices) > 1:
            raise DataError(f"{where}: has several classes: {', '.join(choices)[:200]}")
        if not choices:
            continue
        correction = Correction(
            str(data["path"]),
            str(data["sha256"]),
            "remove" if choices[0] == NONE else "add",
            "no gear" if choices[0] == NONE else choices[0],
            _person(annotation.get("completed_by", annotation.get("annotator"))),
            str(annotation.get("updated_at") or annotation.get("created_at") or ""),
        )
        if fault := correction.fault():
            raise DataError(f"{where}: {fault}")
        corrections.append(correction)
    return corrections


def _choices(annotation: dict[str, Any]) -> list[str]:
    """The classes that an annotation chooses."""
    if "result" in annotation:
        results = [
            result["value"] for result in annotation["result"] if result["type"] == "choices"
        ]
        return [str(choice) for value in results for choice in value["choices"]]
    chosen = annotation.get("class", [])
    if isinstance(chosen, dict):
        chosen = chosen["choices"]
    return [chosen] if isinstance(chosen, str) else [str(choice) for choice in chosen]


def _person(person: Any) -> str:
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return str(person) if "@" in str(person) else f"Label Studio, annotator {person or 'unknown'}"
