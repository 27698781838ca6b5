"""jaxgear: classify photographs of outdoor gear with JAX.

    import jaxgear

    with jaxgear.start(jaxgear.Config(data="FOLDER"), recipe) as run:
        for row in run.epochs():
            print(row)
        folder = run.finish()
    model = jaxgear.Bundle.load(folder)
    jaxgear.prediction_grid(model, jaxgear.predict(model, "new/"))

Importing the package is cheap: it imports no submodule and touches no device. Each name in
`__all__` is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> its module and its name there; without a name, the module itself.
_HOMES = {
    "Bundle": ("bundle", "Bundle"),
    "Config": ("experiment.config", "Config"),
    "ConvNet": ("models.convnet", "ConvNet"),
    "Data": ("experiment.recipe", "Data"),
    "FinishedRun": ("evaluation.finished", "FinishedRun"),
    "Recipe": ("experiment.recipe", "Recipe"),
    "augment": ("data.augment", ""),
    "config": ("experiment.config", ""),
    "devices": ("machine.devices", ""),
    "layers": ("models.convnet", ""),
    "open_dataset": ("data.dataset", "open_dataset"),
    "plots": ("evaluation.plots", ""),
    "predict": ("prediction", "predict"),
    "prediction_grid": ("evaluation.plots.tiles", "prediction_grid"),
    "recipe": ("experiment.recipe", ""),
    "review": ("serving.review.widget", "review"),
    "start": ("experiment.run", "start"),
}
__all__ = list(_HOMES)

if TYPE_CHECKING:  # editors and type checkers read these lines, which say what `_HOMES` says
    from jaxgear.bundle import Bundle as Bundle
    from jaxgear.data import augment as augment
    from jaxgear.data.dataset import open_dataset as open_dataset
    from jaxgear.evaluation import plots as plots
    from jaxgear.evaluation.finished import FinishedRun as FinishedRun
    from jaxgear.evaluation.plots.tiles import prediction_grid as prediction_grid
    from jaxgear.experiment import config as config
    from jaxgear.experiment import recipe as recipe
    from jaxgear.experiment.config import Config as Config
    from jaxgear.experiment.recipe import Data as Data
    from jaxgear.experiment.recipe import Recipe as Recipe
    from jaxgear.experiment.run import start as start
    from jaxgear.machine import devices as devices
    from jaxgear.models import convnet as layers  # noqa: F401
    from jaxgear.models.convnet import ConvNet as ConvNet
    from jaxgear.prediction import predict as predict
    from jaxgear.serving.review.widget import review as review
else:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'jaxgear' has no attribute {name!r}")
        module, attribute = _HOMES[name]
        found = importlib.import_module(f"jaxgear.{module}")
        found = getattr(found, attribute) if attribute else found
        globals()[name] = found  # the next use does not come here
        return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
