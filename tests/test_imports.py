"""Imports point down the table below, and importing jaxgear costs nothing."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A wing may import those in its row, and itself; what stands in none is for all.
LAYERS = {
    "machine": ("machine.hosts", "notebook"),
    "machine.hosts": (),
    "notebook": (),
    "cluster": (),
    "data.images": (),
    "data.folder": ("data.images", "data.crops", "notebook"),
    "data.crops": ("data.images",),
    "data.splits": ("data.folder", "data.images"),
    "data.tfds": ("data.labels", "data.folder", "data.images"),
    "data.labels": ("data.folder", "data.images", "data.crops"),
    "data.synthetic": (),
    "data.augment": (),
    "data": (
        *("data.splits", "data.tfds", "data.synthetic", "data.labels", "data.folder"),
        *("data.images", "data.crops", "machine", "notebook"),
    ),
    "data.recorded": ("data", "data.tfds", "data.splits", "data.folder"),
    "data.composites": ("data", "data.augment", "data.folder", "data.images"),
    "data.prepare": (
        *("data.prepare.decoding", "data", "data.tfds", "data.splits", "data.labels"),
        *("data.folder", "data.images", "cluster"),
    ),
    "data.prepare.decoding": ("data.folder", "data.images", "cluster"),
    "program": (),
    "models.cpu": (),
    "models.pretrained.files": (),
    "models.pretrained": ("models.cpu", "models.pretrained.files"),
    "models": (
        "models.pretrained",
        "models.cpu",
        "program",
        "machine",
        "notebook",
        "data",
        "data.composites",
        "data.folder",
    ),
    "training": ("program", "data", "machine", "notebook"),
    "training.runs": ("training", "data", "data.recorded", "machine", "machine.hosts"),
    "training.vectorized": ("training", "program", "data", "machine"),
    "tracking": ("training", "training.runs", "machine", "program"),
    "bundle": ("models", "program", "data.splits", "notebook"),
    "prediction": (
        *("bundle", "program", "machine", "notebook"),
        *("data", "data.folder", "data.labels", "data.splits", "data.images", "data.crops"),
    ),
    "prediction.proposals": (
        *("prediction", "bundle", "models", "models.pretrained"),
        *("data", "data.folder", "data.images", "data.crops"),
    ),
    "evaluation": (
        *("prediction", "bundle", "program", "training", "training.runs", "machine"),
        *("evaluation.no_gear", "notebook"),
        *("data", "data.recorded", "data.folder", "data.labels", "data.splits"),
    ),
    "evaluation.comparison": ("evaluation",),
    "evaluation.no_gear": ("bundle", "program", "data", "data.augment", "data.composites"),
    "evaluation.plots": (
        *("evaluation", "evaluation.comparison", "prediction", "bundle", "training"),
        *("data", "data.folder", "data.images", "data.crops"),
    ),
    "evaluation.robustness": (
        *("evaluation", "evaluation.no_gear", "prediction", "bundle", "training.runs"),
        "data.folder",
    ),
    "evaluation.report": (
        *("evaluation", "evaluation.plots", "evaluation.no_gear", "evaluation.robustness"),
        *("prediction", "bundle", "training", "training.runs"),
        *("data.recorded", "data.folder", "data.images"),
    ),
    "evaluation.clean": (
        *("evaluation.report", "models", "models.pretrained", "machine"),
        *("data", "data.splits", "data.folder", "data.images", "notebook"),
    ),
    "evaluation.drift": (
        *("evaluation", "evaluation.plots"),
        *("data.splits", "data.folder", "data.images"),
    ),
    "evaluation.acquisition": (
        *("evaluation", "bundle", "data.folder", "data.labels", "data.splits", "notebook"),
    ),
    "serving": ("evaluation", "prediction", "bundle", "data.images"),
    "serving.review": (
        *("serving", "evaluation", "prediction", "bundle"),
        *("data", "data.labels", "data.folder", "data.images", "data.crops"),
    ),
    "serving.review.page": ("serving.review", "serving", "data.images", "data.crops"),
    "experiment": (
        *("evaluation", "evaluation.plots", "evaluation.no_gear", "prediction", "bundle"),
        *("training", "training.runs", "tracking", "models", "program"),
        *("data", "data.augment", "data.composites", "data.recorded", "data.splits"),
        *("data.labels", "data.folder", "machine", "machine.hosts", "notebook"),
    ),
    "study": (
        *("experiment", "training", "training.runs", "training.vectorized", "machine"),
        *("program", "evaluation.comparison", "evaluation.plots"),
    ),
    "commands": (),
    "commands.sets": (
        *("notebook", "data", "data.prepare", "data.splits", "data.folder", "data.labels"),
        "cluster",
        *(
            "models.pretrained",
            "evaluation",
            "evaluation.plots",
            "evaluation.clean",
            "evaluation.drift",
        ),
    ),
    "commands.models": (
        *("commands", "prediction", "prediction.proposals", "bundle", "cluster"),
        *("data", "data.folder", "data.labels", "data.crops"),
        *("evaluation", "evaluation.plots", "evaluation.no_gear", "evaluation.acquisition"),
    ),
    "commands.runs": (
        *("prediction", "bundle", "data", "data.folder"),
        *("evaluation", "evaluation.plots", "evaluation.no_gear", "evaluation.robustness"),
        *("evaluation.report", "evaluation.comparison", "study"),
    ),
    "commands.pages": ("serving", "serving.review", "serving.review.page", "bundle"),
}
FOR_ALL = ("errors", "text", "files", "outputs", "paths", "cache")  # and __init__
MOST_MODULES, MOST_LINES = 8, 250  # of a folder, and of a module
TOP = [ROOT / "jaxgear" / name for name in ("__init__.py", "__main__.py", "cli.py")]
MODULES = sorted((ROOT / "jaxgear").rglob("*.py"))


def imported(path):
    """Full names that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wing_of(name):
    """The folder of a module, or of a name in one, as in LAYERS; "" for the top."""
    parts = name.split(".")[1:]
    while parts and not (ROOT / "jaxgear").joinpath(*parts).is_dir():
        parts.pop()
    return ".".join(parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = ".".join(path.parent.relative_to(ROOT / "jaxgear").parts)
    for name in imported(path):
        assert name.split(".")[0] not in ("experiments", "scripts", "tests", "torch", "tensorflow")
        if not name.startswith("jaxgear.") or path in TOP:
            continue
        wing = wing_of(name)
        if wing == "" and name.split(".")[1] in FOR_ALL:
            continue
        assert here in LAYERS, f"{path.name}, which all may import, imports {name}"
        assert wing in (here, *LAYERS[here]), f"{path.name} imports {name}"


def test_wings_import_each_other_in_no_circle():
    list(graphlib.TopologicalSorter(LAYERS).static_order())  # raises CycleError


def test_wings_are_small_and_say_where_to_start():
    for folder in {path.parent for path in MODULES}:
        modules = {path.name for path in folder.glob("*.py")}
        for name in modules:
            assert (folder / name).read_text().count("\n") <= MOST_LINES, folder / name
        assert len(modules - {"__init__.py"}) <= MOST_MODULES, folder
        if folder.name == "jaxgear":
            continue
        doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        start = re.search(r"(\w+\.py) is where to start|`cli` imports", doc)
        assert start, folder
        assert start[1] is None or start[1] in modules, folder


def test_no_circle_of_imports():
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    # A name that the face of a wing hands on is imported from the module that has it.
    handed_on = {
        f"{face}.{name.rpartition('.')[2]}": name
        for face, path in names.items()
        if path.name == "__init__.py"
        for name in imported(path)
    }
    graph = {
        name: {
            found
            for given in imported(path)
            for origin in [handed_on.get(given, given)]
            for found in (origin, origin.rpartition(".")[0])  # a module, or a name in one
            if found in names and names[found].name != "__init__.py"
        }
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    assert "jaxgear.data.images.decode" in graph["jaxgear.data.folder.read"]  # through a face
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def users_of(package):
    return {
        str(path.relative_to(ROOT / "jaxgear"))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imported(path))
    }


def test_each_heavy_library_has_one_home():
    assert all(user.startswith("evaluation/plots/") for user in users_of("matplotlib"))
    assert users_of("orbax") == {"training/runs/checkpoints.py"}
    assert users_of("tensorflow_datasets") == {"data/tfds/sets.py", "data/prepare/gear_builder.py"}
    assert users_of("array_record") == {"data/tfds/shards.py"}
    assert users_of("isal") == {"data/images/png.py", "data/prepare/decoding/workshop.py"}
    assert users_of("ray") == {"cluster/ray.py"}
    assert users_of("grain") == {"data/stream.py", "data/sampling.py"}
    assert not any(user.startswith(("models", "data")) for user in users_of("optax"))


def test_steps_do_not_import_models():
    steps = ROOT / "jaxgear/training/steps.py"
    assert not any(name.startswith("jaxgear.models") for name in imported(steps))


def test_importing_the_package_imports_nothing_else():
    """Under 0.01 s: one module of ours, and `typing` with what that needs (5 on Python 3.12)."""
    code = (
        "import sys; before = set(sys.modules); import jaxgear; dir(jaxgear); "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"jaxgear"}, done.stderr
    assert len(done.stdout.split()) <= 10


def test_editors_and_completion_know_the_names_that_are_imported_when_used():
    import jaxgear

    tree = ast.parse(Path(jaxgear.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.asname: f"{node.module}.{alias.name}" for node in block.body for alias in node.names
    }
    homes = {name: ".".join(filter(None, home)) for name, home in jaxgear._HOMES.items()}
    assert (
        told.keys() == homes.keys() == set(jaxgear.__all__) == set(dir(jaxgear)) - {"__version__"}
    )
    assert told == {name: f"jaxgear.{home}" for name, home in homes.items()}


def test_the_package_has_the_names_for_notebooks():
    from jaxgear import Bundle, Recipe, devices, predict, recipe
    from jaxgear.bundle.bundle import Bundle as Home
    from jaxgear.machine import devices as home

    assert (Bundle, devices, recipe.Recipe) == (Home, home, Recipe)
    assert callable(predict)
    with pytest.raises(ImportError, match="nothing"):
        from jaxgear import nothing  # noqa: F401
