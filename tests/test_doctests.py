"""The examples in the docstrings of the package's names work as written."""

import doctest
import inspect

import jax
import numpy as np
import optax
import pytest
from made_runs import untrained
from pictures import write_set

import jaxgear

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = [name for name in jaxgear.__all__ if not inspect.ismodule(getattr(jaxgear, name))]


@pytest.fixture(scope="module")
def place(tmp_path_factory, cache):
    """A folder with a run, `RUN`, and five new pictures, in `new/`."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        (folder / "RUN").symlink_to(untrained(folder / "runs", "drawn:60"))
    write_set(folder, {"new": 5})
    return folder


@pytest.mark.one_cache
@pytest.mark.parametrize("name", NAMES)
def test_an_example_works(name, place, monkeypatch):
    monkeypatch.chdir(place)
    shell = {"jaxgear": jaxgear, "jax": jax, "np": np, "optax": optax}
    text = inspect.getdoc(getattr(jaxgear, name))
    example = doctest.DocTestParser().get_doctest(text, shell, name, None, None)
    assert example.examples, f"{name}: its docstring shows no example"
    report = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    assert not report, "".join(report)
