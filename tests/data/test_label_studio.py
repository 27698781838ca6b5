"""Tasks for Label Studio, and its export back as corrections."""

import json
from pathlib import Path

import pytest
from pictures import write_set
from small_bundle import CLASSES, make_bundle

from jaxgear import cli
from jaxgear.data.dataset import open_dataset
from jaxgear.data.labels.label_studio import read_export
from jaxgear.errors import DataError


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Tasks of five new pictures, as `predict` writes them."""
    here = tmp_path_factory.mktemp("studio")
    write_set(here, {"new pictures": 5})
    make_bundle().save(here / "run" / "model")
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", str(here / "run"), str(here / "new pictures"),
                  "--label-studio", str(here / "tasks.json")])  # fmt: skip
    assert not stop.value.code
    return json.loads((here / "tasks.json").read_text())


def annotated(tasks, *choices, **fields):
    """An export: each task with one annotation."""
    return [
        {
            "id": number,
            **task,
            "annotations": [
                {
                    "completed_by": {"id": 3, "email": "ana@example.com"},
                    "was_cancelled": False,
                    "updated_at": f"2026-11-28T12:00:0{number}.5Z",
                    "result": [
                        {
                            **{"from_name": "class", "to_name": "image", "type": "choices"},
                            "value": {"choices": [choice] if isinstance(choice, str) else choice},
                        }
                    ],
                    **fields,
                }
            ],
        }
        for number, (task, choice) in enumerate(zip(tasks, choices, strict=True))
    ]


def written(path, value):
    path.write_text(json.dumps(value))
    return path


def test_tasks_have_what_label_studio_needs(tasks):
    assert len(tasks) == 5
    for task in tasks:
        place = task["data"]["image"]
        assert place.startswith("/data/local-files/?d=tmp/")
        assert " " not in place
        (prediction,) = task["predictions"]
        assert 0 < prediction["score"] <= 1
        (result,) = prediction["result"]
        assert result["type"] == "choices"
        assert result["value"]["choices"][0] in CLASSES
        assert Path(task["data"]["path"]).is_file()


def test_an_export_becomes_corrections_of_the_set(tasks, tmp_path):
    file = written(
        tmp_path / "export.json", annotated(tasks, "boots", "none", "skis", "skis", "skis")
    )
    corrections = read_export(file)
    assert [(c.action, c.label) for c in corrections] == [
        ("add", "boots"), ("remove", "no gear"), *[("add", "skis")] * 3
    ]  # fmt: skip
    assert {c.by for c in corrections} == {"ana@example.com"}
    assert not any(c.by_program for c in corrections)
    root = write_set(tmp_path / "set", {"boots": 8, "axes": 8}, start=50)
    dataset = open_dataset(str(root), size=16, seed=0, labels=str(file), say=lambda line: None)
    assert dataset.classes == ("axes", "boots", "skis")
    assert len(dataset.folder.records) == 16 + 4


def test_cancelled_and_empty_annotations_are_left_out(tasks, tmp_path):
    export = annotated(tasks, *["boots"] * 5)
    export[0]["annotations"][0]["was_cancelled"] = True
    export[1]["annotations"] = []
    export[2]["annotations"][0]["result"] = []
    assert len(read_export(written(tmp_path / "export.json", export))) == 2


def test_the_last_annotation_holds(tasks, tmp_path):
    from jaxgear.data.labels import standing

    export = annotated(tasks[:1], "boots")
    late = annotated(tasks[:1], "axes", updated_at="2027-01-01T00:00:00Z")[0]["annotations"]
    export[0]["annotations"] = [*late, *export[0]["annotations"]]
    rows = read_export(written(tmp_path / "export.json", export))
    assert [row.label for row in standing(rows)] == ["axes"]


def test_the_short_export_is_read_too(tasks, tmp_path):
    export = [
        {**task["data"], "id": 1, "annotator": 7, "class": "boots", "updated_at": "2026"}
        for task in tasks
    ]
    rows = read_export(written(tmp_path / "export.json", export))
    assert [(row.label, row.by) for row in rows] == [("boots", "Label Studio, annotator 7")] * 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda export: {"tasks": export}, "expected a list of tasks"),
        (lambda export: [3], "task 1: not as Label Studio exports it"),
        (lambda export: [{"data": {"image": "x"}, "annotations": []}], "has no path and sha256"),
        (lambda export: [{**export[0], "annotations": 5}], "not as Label Studio exports it"),
    ],
)
def test_another_file_is_one_line(tasks, tmp_path, change, reason):
    file = written(tmp_path / "export.json", change(annotated(tasks, *["boots"] * 5)))
    with pytest.raises(DataError, match=r"export\.json") as error:
        read_export(file)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [(["boots", "axes"], "task 1: has several classes"), ("a/b", "task 1: label 'a/b'")],
)
def test_a_class_that_is_unclear_is_named(tasks, tmp_path, choice, reason):
    file = written(tmp_path / "export.json", annotated(tasks[:1], choice))
    with pytest.raises(DataError, match=reason):
        read_export(file)


def test_no_json_is_one_line(tmp_path):
    (tmp_path / "export.json").write_text("[{")
    with pytest.raises(DataError, match="not JSON"):
        read_export(tmp_path / "export.json")
