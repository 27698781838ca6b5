"""jaxgear: classify photographs of outdoor gear with JAX.

Importing the package is cheap: it imports no submodule and touches no device. Names for notebooks,
such as `jaxgear.Bundle`, are imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> the wing or module that has it. A module's name stands for the module.
_HOMES = {
    "Bundle": "bundle",
    "Config": "experiment",
    "Data": "experiment",
    "Recipe": "experiment",
    "predict": "prediction",
    "config": "experiment.config",
    "devices": "machine.devices",
    "recipe": "experiment.recipe",
    "review": "serving.review.widget",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxgear' has no attribute {name!r}")
    home = importlib.import_module(f"jaxgear.{_HOMES[name]}")
    return home if _HOMES[name].endswith(f".{name}") else getattr(home, name)
