"""What every experiment does around its own expressions: flags, pictures, epochs that are kept.

An experiment file defines its `Config` and `main(config)`; this module holds what two experiments
would otherwise repeat; conclusion.py ends them. See experiments/scratch.py.
"""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, UInt8

from jaxgear import devices
from jaxgear.bundle import Bundle
from jaxgear.compile_cache import keep_compiled
from jaxgear.config import Config
from jaxgear.data.bank import background_bank
from jaxgear.data.batches import Batches
from jaxgear.data.cutout import with_masks
from jaxgear.data.dataset import Dataset, few, keep_trained_out, open_dataset
from jaxgear.data.pasted import and_pasted
from jaxgear.errors import UsageError
from jaxgear.training import history, loop
from jaxgear.training.runs import Run, read_json
from jaxgear.training.steps import TrainState

REDRAW = 15  # seconds between two drawings of the curves, each 0.3: an epoch may take less than one


def start(config: Config, source: str, dataset: Dataset) -> Run:
    """A new run folder, or the one that `--resume` names.

    Raises:
        UsageError: hosts that see different pictures, or what `Run` says.
    """
    if devices.from_first(dataset.folder.fingerprint) != dataset.folder.fingerprint:
        raise UsageError(f"--data {config.data}: not the pictures that host 0 sees there")
    fields = dataclasses.asdict(config)
    if not config.resume:
        return Run.create(config.out, Path(source).stem, fields, dataset, source)
    return Run.reopen(
        config.resume,
        dataset,
        config=fields | {"resume": ""},
        source=source,
        from_epoch=config.from_epoch,
        allow_data_change=config.allow_data_change,
    )


def open_data(config: Config) -> Dataset:
    """The set that `--data` names, checked and split by `--seed`.

    The first thing an experiment does: programs compiled from here on are kept.
    """
    keep_compiled()
    dataset = open_dataset(
        config.data,
        size=config.image_size,
        seed=config.seed,
        on_bad=config.on_bad,
        group_by=config.group_by,
    )
    if config.resume:
        dataset = keep_trained_out(read_json(Path(config.resume) / "splits.json"), dataset)
    if config.batch_size > dataset.counts()["train"]:
        raise UsageError(
            f"--batch-size {config.batch_size}: only {dataset.counts()['train']} pictures to "
            "train on"
        )
    return dataset.streamed(config.stream, channels=4 if config.backgrounds else 3)


def open_backgrounds(config: Config) -> UInt8[Array, "M T T 3"] | None:
    """What `--backgrounds` names, on the device (data/bank.py); None for no backgrounds."""
    if not config.backgrounds:
        return None
    folder = None if config.backgrounds == "drawn" else Path(config.backgrounds)
    bank = background_bank(folder, config.image_size, config.seed)
    print(f"backgrounds: {len(bank)} pieces, of {config.backgrounds}")
    return jnp.asarray(bank)


def picture_batches(
    config: Config, dataset: Dataset, bank: UInt8[Array, "M T T 3"] | None = None
) -> tuple[Batches, Batches]:
    """The training and validation sides, on the devices, or streamed to them.

    With a bank of backgrounds training pictures have the mask of their object as a fourth channel,
    and validation pictures are there twice: as they are, and pasted; both are made when they are
    due, or, where the set is not `stored`, all at once.
    """
    train, batches = dataset.side("train"), Batches
    if dataset.stored:
        from jaxgear.data.stream import Stream  # Grain: 0.4 s that most runs need not wait for

        batches = Stream
    if bank is not None:
        train = with_masks(train, dataset.folder)
    val = and_pasted(dataset.side("val"), dataset.folder, bank)
    train, val = (
        batches(side.images, side.labels, config.batch_size, config.seed, side.names)
        for side in (train, val)
    )
    return train, val


def warm_start(config: Config, state: TrainState) -> TrainState:
    """`state`, with the weights of `--init-from` wherever name and shape are the same.

    Raises:
        UsageError: not one leaf fits.
    """
    if not config.init_from:
        return state
    there = traverse_util.flatten_dict(dict(Bundle.load(config.init_from).variables), sep="/")
    here = traverse_util.flatten_dict(
        {"params": state.params, "batch_stats": state.batch_stats}, sep="/"
    )
    fits = {k for k, leaf in here.items() if k in there and there[k].shape == leaf.shape}
    if not fits:
        raise UsageError(f"--init-from {config.init_from}: none of its weights fit this network")
    rest = [
        f"{k} {list(here[k].shape) if k in here else 'missing'} here, "
        f"{list(there[k].shape) if k in there else 'missing'} there"
        for k in sorted((here.keys() | there.keys()) - fits)
    ]
    print(f"weights of {config.init_from}: {len(fits)} of {len(here)} leaves taken")
    if rest:
        print(f"not taken: {few(rest, 5)}")
    taken = traverse_util.unflatten_dict(
        {k: jnp.asarray(there[k], leaf.dtype) if k in fits else leaf for k, leaf in here.items()},
        sep="/",
    )
    state = state.replace(params=taken["params"], batch_stats=taken.get("batch_stats", {}))
    if state.averaged is not None:
        state = state.replace(averaged=jax.tree.map(jnp.copy, taken))
    return state.replace(opt_state=state.tx.init(state.params))


def follow(
    run: Run,
    state: TrainState,
    epochs: Generator[tuple[TrainState, history.Row]],
    patience: int,
) -> TrainState:
    """Records each epoch and keeps the curves drawn; stops early when patience has run out.

    The state after the last epoch, or `state` where a resumed run has none left to train. A signal
    saves the state after the last finished step, and then ends the process.
    """
    # Not above: matplotlib takes 0.2 s, which `--help` need not wait for.
    from jaxgear.evaluation import plots

    if run.rows and history.epochs_since_best(run.rows) >= patience:
        return state

    def draw() -> None:
        if devices.first_host():
            plots.save(plots.curves(run.rows, run.path.name), run.path / "curves.png")

    drawn, stale = -math.inf, False
    with contextlib.closing(epochs):
        try:
            for state, row in epochs:
                run.record(state, row)
                stale = time.monotonic() - drawn < REDRAW
                if not stale:
                    draw()
                    drawn = time.monotonic()
                if history.epochs_since_best(run.rows) >= patience:
                    print(f"stopped early: no lower validation loss for {patience} epochs")
                    break
        except loop.Stopped as stopped:
            run.pause(stopped.state)
            raise
        finally:
            if stale:
                with contextlib.suppress(OSError):  # whatever ends the run is the news
                    draw()
    return state


def last(epochs: Iterator[tuple[TrainState, history.Row]]) -> TrainState:
    """The state after epochs that need no record."""
    return collections.deque(epochs, maxlen=1)[0][0]
