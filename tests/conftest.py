"""Fixtures that every test may use."""

import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes in signatures are checked in tests, and only there.
install_import_hook("jaxgear", "typecheck.check")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs between tests, the processes they start, and sessions.

    Compiling them takes two fifths of the time. A folder for each of `-n` workers, as JAX may read
    what is half written.
    """
    from jaxgear.machine.compile_cache import processor

    if not config.pluginmanager.hasplugin("cacheprovider"):
        return  # a session that a test has started: it has the folder from there
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    keep = {
        "jax_compilation_cache_dir": str(config.cache.mkdir(f"compiled-{processor()}-{worker}")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    for name, value in keep.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and reference numbers beside the repository, if there."""
    folder = Path(__file__).parents[1].resolve().parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` beside the repository (real photographs)")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the file: its drawn pictures are drawn, and its programs compiled, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Gives each test an empty cache, so that none reads or fills the user's own; or `cache`, to
    those that are marked `one_cache`.
    """
    shared = request.node.get_closest_marker("one_cache")
    folder = request.getfixturevalue("cache") if shared else tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("JAXGEAR_CACHE", str(folder))
    return folder
