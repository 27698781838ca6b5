"""The notebook of `experiments` shows what it says, and shows it again."""

import itertools
import math
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "experiments" / "challenge.ipynb"
TESTED = (79, 79, 144, 144)  # test pictures of its four runs


def tolerances(accuracies: list[float]) -> list[float]:
    """How far each test accuracy may be from that of another machine.

    The same versions on the same processor give the same bits. Others round differently, which
    after some hundred steps is like starting from other weights. The limit is three standard
    deviations of the difference of two networks of the same accuracy that make independent
    mistakes, more than two that learned from the same pictures differ by.
    """
    pairs = zip(accuracies, TESTED, strict=True)
    return [3 * math.sqrt(2 * share * (1 - share) / n) for share, n in pairs]


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def printed(book: nbformat.NotebookNode) -> str:
    outputs = (output for cell in code_cells(book) for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream")


def kinds(book: nbformat.NotebookNode) -> list[list[str]]:
    """For each cell, what it shows: pictures, tables and bars; printed lines do not count."""
    return [
        [kind for output in cell.outputs for kind in sorted(output.get("data", {}))]
        for cell in code_cells(book)
    ]


def accuracies(book: nbformat.NotebookNode) -> list[float]:
    """The test accuracies, in order: plain, augmented, sketches from scratch and transferred."""
    return [float(value) for value in re.findall(r"test accuracy ([\d.]+)", printed(book))]


def sets(book: nbformat.NotebookNode) -> list[str]:
    """The lines that say how many pictures there are and how they are split."""
    return re.findall(r".* pictures, .* groups: .*", printed(book))


def executed(book: nbformat.NotebookNode, folder: Path, **constants: object) -> None:
    """Runs `book` in `folder`, with other values for constants of its first cell."""
    for name, value in constants.items():
        changed, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", book.cells[1].source)
        assert count == 1
        book.cells[1].source = changed
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=600, resources=resources).execute()


def test_it_is_committed_with_its_outputs_and_small():
    book = read()
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert all(cell.execution_count for cell in code_cells(book))
    text = NOTEBOOK.read_text()
    assert str(ROOT) not in text
    assert "/tmp/" not in text
    shown = [kind for cell in kinds(book) for kind in cell]
    assert shown.count("image/jpeg") == 5  # the set, augmentation, new pictures, maps, sketches
    assert shown.count("image/png") == 8  # four curves, two comparisons, confusion, filters
    assert not any(output.output_type == "error" for c in code_cells(book) for output in c.outputs)


def test_words_stand_before_each_code_cell():
    cells = [cell.cell_type for cell in read().cells]
    assert all(pair != ("code", "code") for pair in itertools.pairwise(cells))


def test_its_figures_say_what_its_words_say():
    """Overfitting without augmentation; transfer better than from scratch."""
    plain, augmented, scratch, transferred = accuracies(read())
    assert augmented > plain
    assert transferred > scratch + 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_compile")
def test_it_shows_the_same_again(tmp_path):
    """In a folder that is neither the clone nor its own, with an empty cache."""
    before, after = read(), read()
    executed(after, tmp_path)
    assert sets(after) == sets(before)
    assert kinds(after) == kinds(before)
    found, expected = accuracies(after), accuracies(before)
    for accuracy, before_it, most in zip(found, expected, tolerances(expected), strict=True):
        assert abs(accuracy - before_it) <= most
    plain, augmented, scratch, transferred = found
    assert augmented > plain
    assert transferred > scratch


@pytest.mark.slow
def test_transfer_from_weights_that_are_given(tmp_path):
    """Random weights of a narrow ResNet-18 stand for pretrained ones; few and small pictures."""
    from models.random_weights import torchvision_weights
    from safetensors.numpy import save_file

    save_file(torchvision_weights(18, 8), tmp_path / "resnet.safetensors")
    book = read()
    executed(book, tmp_path, DATA="drawn:120", SIZE=32, EPOCHS=1, WEIGHTS="resnet.safetensors")
    assert "no ImageNet weights" not in printed(book)
    assert len(accuracies(book)) == 4
