"""What README shows works as it stands there."""

import ast
from pathlib import Path

from pictures import write_set
from small_bundle import make_bundle

README = Path(__file__).parents[1] / "README.md"


def test_the_five_lines_for_a_notebook(tmp_path, monkeypatch):
    block = README.read_text().split("<!-- notebook -->\n```python\n")[1].split("```")[0]
    lines = ast.parse(block).body
    assert len(lines) == 5
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, {"new": 5})
    make_bundle().save(tmp_path / "RUN" / "model")
    shell = {}
    exec(compile(ast.Module(lines[:-1], []), str(README), "exec"), shell)
    figure = eval(compile(ast.Expression(lines[-1].value), str(README), "eval"), shell)
    assert len(figure.axes) == len(shell["found"]) == 5
    assert figure._repr_png_().startswith(b"\x89PNG")
