"""What a notebook shows: objects by themselves, and one bar that moves."""

import dataclasses
import signal
import sys
import types

import nbclient
import nbformat
import numpy as np
import pytest
from made_runs import write_run
from pictures import write_set
from small_bundle import make_bundle

from jaxgear import notebook
from jaxgear.data.dataset import open_dataset
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.machine import signals
from jaxgear.prediction import predict

HOSTILE = "<b>&\"'"
ESCAPED = "&lt;b&gt;&amp;&quot;&#x27;"


def outputs(*cells: str) -> list[dict]:
    """The outputs of the last of `cells`, run by a kernel."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return book.cells[-1].outputs


def test_a_bar_moves_in_one_output_and_its_end_stays():
    (shown,) = outputs(
        "from jaxgear.notebook import Bar, in_notebook\n"
        "assert in_notebook()\n"
        "bar = Bar()\n"
        "for done in range(1001):\n"
        "    bar.move(done, 1000, '<reading>  fast ')"
    )
    assert 'value="1000" max="1000"' in shown["data"]["text/html"]
    assert shown["data"]["text/html"].endswith("&lt;reading&gt;&ensp;fast")  # apart in HTML too
    assert shown["data"]["text/plain"] == "1000/1000  <reading>  fast "


def test_training_is_one_bar_below_its_notes_and_a_command_s_bar_is_the_same():
    """The script of `test_progress`, in a kernel."""
    from training.test_progress import SCRIPT

    said, training, command = outputs(
        SCRIPT + "from jaxgear.notebook import progress\n"
        "progress.DELAY = 0\n"
        "with progress.bar('judging') as tick:\n"
        "    for done in range(5):\n"
        "        tick(done, 4)"
    )
    assert said["text"] == "compiled\n"
    assert training["data"]["text/plain"].startswith("8/8  epoch   2  loss 1.0000 train 2.0000 val")
    assert command["data"]["text/plain"] == "4/4  judging"


def test_a_terminal_is_no_notebook(monkeypatch, capsys):
    assert not notebook.in_notebook()
    terminal = types.SimpleNamespace(get_ipython=lambda: object())
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert not notebook.in_notebook()
    notebook.Bar().move(1, 2, "reading")
    notebook.Live().show("a picture")
    assert capsys.readouterr() == ("", "")


def test_tables_hold_text_alone():
    for shown in (
        notebook.facts(HOSTILE, {HOSTILE: HOSTILE}),
        notebook.table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]]),
        notebook.bars(HOSTILE, [(HOSTILE, 0.5)]),
        notebook.crossed(HOSTILE, [HOSTILE], [HOSTILE], [(HOSTILE, HOSTILE)]),
        notebook.picture(np.zeros((2, 2, 3), np.uint8), HOSTILE),
    ):
        assert ESCAPED in shown
        assert HOSTILE not in shown
        assert "color" not in shown  # those of the notebook are readable on light and dark


def test_a_cross_table_has_sums_and_no_empty_columns():
    pairs = [("a", "x"), ("a", "x"), ("b", "x"), ("b", "z")]
    shown = notebook.crossed("", ["a", "b"], ["x", "y", "z"], pairs)
    rows = [
        [cell.partition(">")[2] for cell in row.replace("</td", "</th").split("</th>")[:-1]]
        for row in shown.split("<tr>")[1:]
    ]
    assert rows == [
        ["", "x", "z", "all"],
        ["a", "2", "0", "2"],
        ["b", "1", "1", "2"],
        ["all", "3", "1", "4"],
    ]


@pytest.mark.one_cache
def test_a_set_shows_its_classes_and_splits(tmp_path):
    write_set(tmp_path, {"R&D": 10, "boots": 10})
    dataset = open_dataset(str(tmp_path), size=16, seed=0, say=lambda line: None)
    assert repr(dataset) == "<Dataset, 20 pictures of 2 classes>"
    shown = dataset._repr_html_()
    assert "R&amp;D" in shown
    for split, count in dataset.counts().items():
        assert f">{split}</th>" in shown
        assert f">{count}</td>" in shown


def test_a_bundle_and_its_predictions_show_what_they_know(tmp_path):
    bundle = make_bundle(classes=("boots", "R&D", HOSTILE))
    assert "3 classes: boots, R&D" in repr(bundle)
    assert "16 x 16 pixels" in repr(bundle)
    assert "R&amp;D" in bundle._repr_html_()
    write_set(tmp_path, {"new": 1})
    (tmp_path / "new" / "not.png").write_text("no picture")
    found, unreadable = predict(bundle, tmp_path / "new")
    name = found.name(bundle.classes)
    assert repr(found).endswith(f"00000.png: {name} {found.probs.max():.2f}>")
    shown = found._repr_html_()
    assert ESCAPED in shown
    assert HOSTILE not in shown
    assert shown.count("<meter") == 3
    assert "base64" in shown
    assert repr(unreadable).endswith(f"not.png: {unreadable.error}>")
    assert unreadable._repr_html_() is None


def test_a_run_shows_its_figures_tested_or_not(tmp_path):
    tested = FinishedRun.read(write_run(tmp_path / "a", accuracy=0.9))
    of_class = {HOSTILE: {"precision": 1.0, "recall": 0.5, "f1": 0.667, "n": 4}}
    test = tested.test | {"interval95": [0.8, 0.95], "per_class": of_class}
    shown = dataclasses.replace(tested, test=test)
    assert "test accuracy: 0.9000 (95 % interval 0.8000 to 0.9500)" in repr(shown)
    assert "best epoch: 2 of 3" in repr(shown)
    assert f"{ESCAPED}</th>" in shown._repr_html_()
    assert "0.667" in shown._repr_html_()
    untested = FinishedRun.read(write_run(tmp_path / "b", accuracy=None))
    assert "test accuracy: not tested" in repr(untested)
    assert "not tested" in untested._repr_html_()


def test_a_second_interrupt_raises_in_a_notebook_where_it_would_end_the_process(monkeypatch):
    monkeypatch.setattr(signals, "in_notebook", lambda: True)
    stop = signals.Signals()
    stop(signal.SIGINT, None)
    assert stop.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)
