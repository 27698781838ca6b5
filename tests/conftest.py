"""Fixtures that every test may use."""

import gc
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from jaxtyping import install_import_hook

# JAX keeps millions of objects; looking through them as often as Python does takes a tenth of the
# time.
gc.set_threshold(50_000, 20, 100)

# XLA without LLVM's optimisation and with its older way to emit fusions. A training step of a small
# ResNet-18 compiles in 0.4 s of processor time, not 2.6 s (jax 0.12, which has no older way: 1.3 s,
# not 2.5 s). The second extra option is that of jaxgear/machine/process.py, which adds none here.
# AVX lacks fused multiply-add, which some kernels would use and others not: all round alike.
COMPILES_FAST = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters,xla_cpu_flatten_after_fusion"
)
if platform.machine() in ("x86_64", "AMD64"):
    COMPILES_FAST += " --xla_cpu_max_isa=AVX"


# Layers, networks and training steps.
NUMERIC = (
    *("test_convolution", "test_normalization", "test_pooling", "test_convnet", "test_resnet"),
    *("test_steps", "test_loop", "test_optim", "test_parts"),
)
# Files with the longest tests. They start first, so that no process is alone with one at the end.
LONGEST = (
    *("test_challenge", "test_faults", "test_hosts", "test_experiments", "test_unlabelled"),
    *("test_foreign", "test_optimizers", "test_wheel", "test_report", "test_study"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles fast where slow or numeric tests are left out, and keeps what was compiled."""
    # Shapes and dtypes in signatures are checked in tests, and only there. CI runs numeric tests
    # twice; the second time, optimised, nothing is new for this check.
    if config.option.markexpr != "numeric":
        install_import_hook("jaxgear", "typecheck.check")
    if config.option.markexpr in ("not slow", "slow and not numeric"):
        flags = os.environ.get("XLA_FLAGS", "")
        if COMPILES_FAST not in flags:
            os.environ["XLA_FLAGS"] = f"{COMPILES_FAST} {flags}".strip()
        # Without huge pages no process restarts itself, which takes up to 1.5 s.
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    keep_compiled(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what computes: CI runs it once more, as XLA compiles for users."""
    for item in items:
        if item.path.stem in NUMERIC:
            item.add_marker("numeric")
    items.sort(key=lambda item: item.path.stem not in LONGEST)  # else they stay in order


def keep_compiled(config: pytest.Config) -> None:
    """Keeps compiled programs between tests, the processes they start, and sessions.

    Each of the `-n` workers has its own folder, as JAX may read a half-written file.
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


@pytest.fixture
def as_users_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts compile as those of users: they train for long."""
    flags = os.environ.get("XLA_FLAGS", "").replace(COMPILES_FAST, "").strip()
    monkeypatch.setenv("XLA_FLAGS", flags)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: real photographs and reference numbers."""
    folder = Path(__file__).parents[1].resolve().parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` beside the repository (real photographs)")
    return folder


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """What bars of progress show, by their text: (done, total) each time."""
    from jaxgear.notebook import progress

    shown: dict[str, list[tuple[int, int]]] = {}
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(
        progress.Bar,
        "move",
        lambda self, done, total, text: shown.setdefault(text, []).append((done, total)),
    )
    return shown


@pytest.fixture(autouse=True, scope="session")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Draws each drawn set once for all tests and workers, and copies it into their caches."""
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "drawn"

    def write(folder: Path, count: int) -> Path:
        if not folder.exists():
            source = write_drawn(kept / str(count), count)
            with suppress(OSError):  # `folder` cannot be written: `write_drawn` says so
                shutil.copytree(source, folder)
        return write_drawn(folder, count)

    from jaxgear.data import sources  # after the hook above
    from jaxgear.data.synthetic import write_drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "write_drawn", write)
        yield


@pytest.fixture(autouse=True, scope="session")
def exported_once() -> Iterator[None]:
    """Exports the network of each recipe once for all tests of a worker."""
    from exports import once  # after the hook above

    from jaxgear.experiment import conclusion

    with pytest.MonkeyPatch.context() as patch:
        program = SimpleNamespace(of=once(conclusion.Program.of))
        patch.setattr(conclusion, "Program", program)
        patch.setattr(conclusion, "map_program", once(conclusion.map_program))
        yield


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
