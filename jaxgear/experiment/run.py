"""Trains a recipe in a run folder: opens the data, resumes, records, draws, tests.

    with experiment.start(config, recipe) as run:
        for row in run.epochs():
            if run.patience_exhausted:
                break
        return run.finish()

See experiments/scratch.py for a whole experiment, and assembly.py for the parts of training.

Ctrl-C and SIGTERM save the state after the last finished step. `--resume` continues any interrupted
run from the newest complete state on disk, on the CPU to the same bits. A damaged checkpoint is an
error that names it; only `--from-epoch` skips it. Changed images are an error that names them,
unless `--allow-data-change` records them. The test split is opened once, after the model is final.
"""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxgear.data.unlabelled import how_used
from jaxgear.errors import UsageError
from jaxgear.experiment.assembly import Training, prepare
from jaxgear.experiment.conclusion import HandedOn, conclude
from jaxgear.experiment.config import Config
from jaxgear.experiment.diagnosis import diagnosed
from jaxgear.experiment.recipe import Make, source_of
from jaxgear.files import write_bytes
from jaxgear.machine import devices
from jaxgear.machine.profiler import Profiler
from jaxgear.notebook import Live, Png, in_notebook
from jaxgear.tracking import Trackers
from jaxgear.training import history, loop
from jaxgear.training.progress import Progress
from jaxgear.training.runs.run import Run

# Seconds between drawings of the curves; one takes 0.3 s, an epoch maybe less than 1 s.
REDRAW, REDRAW_LIVE = 15, 3


def start(config: Config, make: Make, mesh: Mesh | None = None) -> "Experiment":
    """An experiment in a new run folder, or in the one that `--resume` names.

    The folder is named after the file that defines the Config; with a plain `Config`, after the
    file of the recipe, or `notebook`.

    >>> def recipe(config, data):
    ...     return jaxgear.Recipe(
    ...         model=jaxgear.ConvNet([jaxgear.layers.Conv(8)], data.classes),
    ...         optimizer=optax.adam,
    ...         rate=0.003,
    ...         epochs=config.epochs,
    ...     )
    >>> config = jaxgear.Config(data="drawn:60", image_size=16, batch_size=20, epochs=2)
    >>> with jaxgear.start(config, recipe) as run:
    ...     for row in run.epochs():
    ...         pass
    ...     folder = run.finish()
    60 pictures, 12 classes, 60 groups: 35 train, 12 val, 13 test
    ...
    results/runs/...    test accuracy ...

    Raises:
        UsageError: the hosts see different images, or as `prepare` and `Run`.
    """
    trackers = Trackers(config.track)
    training = prepare(config, make, mesh)
    inputs, recipe = training.inputs, training.recipe
    config, dataset = inputs.config, inputs.dataset
    for flag, folder in (("data", dataset.folder), ("unlabelled", dataset.unlabelled)):
        if folder and devices.from_first(folder.fingerprint) != folder.fingerprint:
            place = getattr(config, flag)
            raise UsageError(f"--{flag} {place}: host 0 sees other pictures there than this host")
    with diagnosed(recipe, training.train, len(dataset.classes)):
        variables = recipe.network_variables(training.state.variables)
        # Export before step 0: a network that cannot be exported fails now, not after training.
        handed_on = HandedOn(recipe.network(), variables, dataset.size, len(dataset.classes))
    fields, source = dataclasses.asdict(config), source_of(make)
    if config.resume:
        run = Run.reopen(
            config.resume,
            dataset,
            config=fields | {"resume": ""},
            source=source,
            from_epoch=config.from_epoch,
            allow_data_change=config.allow_data_change,
        )
    else:
        name = _name(config, make)
        run = Run.create(config.out, name, fields, dataset, source, inputs.made_of(recipe))
    return Experiment(training, handed_on, run, trackers)


def _name(config: Config, make: Make) -> str:
    """The name of the file that made the experiment, or "notebook"."""
    home = getattr(make if type(config) is Config else type(config), "__module__", "")
    file = getattr(sys.modules.get(home), "__file__", None)
    return Path(file).stem if file else "notebook"


class Experiment:
    """A recipe and the run folder it trains in. A context manager: leaving it releases both."""

    def __init__(self, training: Training, handed_on: HandedOn, run: Run, trackers: Trackers):
        self.config, self.dataset = training.inputs.config, training.inputs.dataset
        self.training, self.run = training, run
        self.recipe, self.state = training.recipe, training.state
        self._handed_on, self._trackers = handed_on, trackers
        self._epochs: Generator[history.Row] | None = None

    def __enter__(self) -> "Experiment":
        self.run.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._close()
        finally:
            self.run.__exit__(*error)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def rows(self) -> list[history.Row]:
        """The history so far, including epochs before a resume."""
        return self.run.rows

    @property
    def patience_exhausted(self) -> bool:
        """Whether `--patience` epochs of whole images gave no new minimum of validation loss."""
        whole = self.rows and self.rows[-1].size in (None, self.dataset.size)
        return bool(whole) and history.epochs_since_best(self.rows) >= self.config.patience

    def epochs(self) -> Iterator[history.Row]:
        """Trains the remaining epochs and yields the row of each after it is on disk.

        Redraws the curves, which a notebook shows. A signal saves the state after the last finished
        step and then ends the process.
        """
        self.state = self.run.latest(self.state, self.recipe.layout)
        self._trackers.show(self.path, self.rows, self.state)
        self._epochs = self._train()
        return self._epochs

    def finish(self) -> Path:
        """Saves the best epoch as a bundle, tests it (`--test`), and returns the run folder."""
        self._close()
        if self.patience_exhausted and self.rows[-1].epoch < self.recipe.epochs:
            patience = self.config.patience
            print(f"stopped early: no lower validation loss for {patience} epochs")
        variables, row = self.run.best(self.state)
        variables = self.recipe.network_variables(variables)
        conclude(
            *(self.run, row, self.dataset, self._handed_on, variables),
            features_of=self.recipe.features_of,
            bank=self.training.inputs.bank,
            share=self.recipe.evidence,
            test=self.config.test,
        )
        self._trackers.show(self.path, self.rows, tested=self.config.test)
        return self.path

    def _close(self) -> None:
        if self._epochs is not None:
            self._epochs.close()

    def _train(self) -> Generator[history.Row]:
        live = Live()

        def draw() -> None:
            # Imported here: matplotlib takes 0.2 s, for which the first step should not wait.
            from jaxgear.evaluation.plots import figures, learning_curves

            if devices.first_host():
                picture = figures.png(learning_curves.curves(self.rows, self.path.name))
                write_bytes(self.path / "curves.png", picture)
                live.show(Png(picture))

        if self.patience_exhausted:  # the run had stopped early before it was resumed
            return
        training, drawn, stale = self.training, -math.inf, False
        dataset, pseudo = self.dataset, {}
        if dataset.unlabelled is not None:
            used = how_used(dataset)
            pseudo = {"pseudo_used": used.share, "pseudo_right": used.right}
        self._handed_on.make_maps()
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(Progress(self.recipe.epochs))
            stack.enter_context(diagnosed(self.recipe, training.train, len(dataset.classes)))
            profiled = self.config.profile if devices.first_host() else 0
            profiler = stack.enter_context(Profiler(self.path / "profile", profiled, progress.say))
            first = len(self.rows) + 1
            epochs = training.epochs(
                self.state,
                first=first,
                last=self.recipe.epochs,
                progress=progress,
                watch=profiler.step,
                counted=self.run.note_flops,
            )
            stack.enter_context(contextlib.closing(epochs))
            try:
                for self.state, row in epochs:
                    row = dataclasses.replace(row, **pseudo)
                    self.run.record(self.state, row)
                    self._trackers.show(self.path, self.rows, self.state)
                    if row.epoch == first and math.isnan(row.learning_rate):
                        progress.say(
                            "note: the optimizer does not use the recipe's rate, so history.csv "
                            "has no rate"
                        )
                    stale = time.monotonic() - drawn < (REDRAW_LIVE if in_notebook() else REDRAW)
                    if not stale:
                        draw()
                        drawn = time.monotonic()
                    yield row
            except loop.Stopped as stopped:
                self.run.pause(stopped.state)
                raise
            finally:
                if stale:
                    with contextlib.suppress(OSError):  # must not hide the error that ends the run
                        draw()
