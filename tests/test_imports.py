"""Imports point down the table below, and importing jaxgear costs nothing."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each part may import those to its right, and itself.
LAYERS = {
    "devices": ("errors",),
    "data": ("devices", "files", "errors"),
    "forward": (),
    "program": ("program_checks", "forward", "data", "errors"),
    "program_checks": ("errors",),
    "models": ("program", "forward", "data", "files", "errors"),
    "compile_cache": ("data",),
    "training": ("forward", "compile_cache", "data", "models", "devices", "files", "errors"),
    "bundle": ("program", "forward", "data", "models", "files", "errors"),
    "prediction": ("bundle", "program", "compile_cache", "data", "models", "files", "errors"),
    "export": ("bundle", "program", "errors"),
    "prediction_tables": ("prediction", "data", "files"),
    "evaluation": (
        *("prediction", "bundle", "program", "training", "compile_cache", "data", "models"),
        *("files", "errors"),
    ),
    "serving": ("evaluation", "prediction", "bundle", "data", "errors"),
    "conclusion": (
        *("prediction", "bundle", "evaluation", "training", "models", "program", "forward"),
        *("data", "devices", "files", "errors"),
    ),
    "recipe": ("training", "models", "data", "devices"),
    "diagnosis": ("devices", "recipe", "training", "forward", "data", "errors"),
    "assembly": (
        *("diagnosis", "recipe", "config", "bundle", "program"),
        *("training", "data", "compile_cache", "devices", "errors"),
    ),
    "experiment": (
        *("assembly", "conclusion", "diagnosis", "recipe", "config", "evaluation"),
        *("training", "devices", "errors"),
    ),
    "config": ("bundle", "training", "data", "errors"),
    "files": ("errors",),
    "errors": (),
    "huge_pages": (),
    "xla_flags": (),
}
MODULES = sorted((ROOT / "jaxgear").rglob("*.py"))


def imported(path):
    """Full names that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name):
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = path.relative_to(ROOT / "jaxgear").parts[0].removesuffix(".py")
    for name in imported(path):
        assert name.split(".")[0] not in ("experiments", "scripts", "tests", "torch", "tensorflow")
        if name.startswith("jaxgear.") and here in LAYERS:
            assert part(name) in (here, *LAYERS[here]), f"{path.name} imports {name}"


def test_no_circle_of_imports():
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    graph = {
        name: {
            found
            for given in imported(path)
            for found in (given, given.rpartition(".")[0])  # a module, or a name in one
            if found in names and found != name
        }
        for name, path in names.items()
    }
    assert graph["jaxgear.cli"]  # the names are those of modules
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def users_of(package):
    return {
        str(path.relative_to(ROOT / "jaxgear"))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imported(path))
    }


def test_each_heavy_library_has_one_home():
    drawing = {user for user in users_of("matplotlib") if not user.startswith("evaluation/plots")}
    assert drawing == {"evaluation/fonts.py"}
    assert users_of("orbax") == {"training/checkpoints.py"}
    assert users_of("tensorflow_datasets") == {"data/tfds_sets.py", "data/gear_builder.py"}
    assert users_of("array_record") == {"data/shards.py"}
    assert users_of("isal") == {"data/png.py", "data/workshop.py"}
    assert users_of("grain") == {"data/stream.py"}
    assert not any(user.startswith(("models", "data")) for user in users_of("optax"))


def test_steps_do_not_import_models():
    steps = ROOT / "jaxgear/training/steps.py"
    assert not any(name.startswith("jaxgear.models") for name in imported(steps))


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys, jaxgear; heavy = {'jax', 'numpy', 'tensorflow', 'torch', 'matplotlib'}; "
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
