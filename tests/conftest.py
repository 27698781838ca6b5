"""Fixtures that every test may use."""

import gc
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# JAX keeps millions of objects; looking through them as often as Python does takes a tenth of the
# time.
gc.set_threshold(50_000, 20, 100)

# Shapes and dtypes in signatures are checked in tests, and only there.
install_import_hook("jaxgear", "typecheck.check")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs between tests, the processes they start, and sessions.

    Compiling them takes two fifths of the time. Each of the `-n` workers has its own folder, as JAX
    may read a half-written file.
    """
    from jaxgear.machine.compile_cache import processor

    if not config.pluginmanager.hasplugin("cacheprovider"):
        return  # a session that a test started; the environment names the folder
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
    """The folder `shared` beside the repository: real photographs and reference numbers."""
    folder = Path(__file__).parents[1].resolve().parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` beside the repository (real photographs)")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for a test file, which draws images and compiles programs once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Gives each test an empty cache, not the user's; tests marked `one_cache` get `cache`."""
    shared = request.node.get_closest_marker("one_cache")
    folder = request.getfixturevalue("cache") if shared else tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("JAXGEAR_CACHE", str(folder))
    return folder
