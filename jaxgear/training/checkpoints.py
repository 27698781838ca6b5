"""Checkpoints of a run: the newest, and the best few by validation loss. The only Orbax import.

A step directory holds the items `model` (parameters and statistics), `average` (where one is kept),
`train` (optimizer state, step, key) and a manifest beside them: the sha256 of every file, as Orbax
restores a flipped byte without a word, and the shape of every leaf, as it names none. `save`
returns when everything is on disk.
"""

import hashlib
import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxgear.errors import CheckpointError
from jaxgear.files import write_json
from jaxgear.training.history import Row
from jaxgear.training.steps import TrainState

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints under `folder`, one an epoch. A context manager."""

    def __init__(self, folder: Path, keep_best: int = 3):
        self.folder = folder.resolve()  # Orbax wants absolute paths
        by_loss = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics["val_loss"], reverse=True, n=keep_best
        )
        options = ocp.CheckpointManagerOptions(
            step_format_fixed_length=6,
            cleanup_tmp_directories=True,
            # Both are needed: with the policy alone Orbax takes the newest for the best.
            best_fn=lambda metrics: metrics["val_loss"],
            best_mode="min",
            preservation_policy=preservation_policy.AnyPreservationPolicy(
                [preservation_policy.LatestN(1), by_loss]
            ),
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    @property
    def epochs(self) -> list[int]:
        """Epochs that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, row: Row) -> None:
        """Writes the state after `row.epoch`; complete on disk when this returns."""
        items = _items(state)
        saved = self._manager.save(
            row.epoch,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in items.items()}
            ),
            metrics={"val_loss": row.val_loss},
        )
        if not saved:
            raise CheckpointError(
                f"{self.folder}: epoch {row.epoch} is there already, not replaced"
            )
        folder = self._step_folder(row.epoch)
        write_json(folder / MANIFEST, {"files": _sums(folder), "leaves": _leaves(items)})

    def restore(self, like: TrainState, epoch: int) -> TrainState:
        """The state after `epoch`, on the devices of `like`.

        Raises:
            CheckpointError: no such epoch, a file that differs from the manifest, or leaves that do
                not fit `like`.
        """
        self._verify(epoch, _items(like))
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(like))
        items = {name: ocp.args.StandardRestore(tree) for name, tree in targets.items()}
        restored = self._manager.restore(epoch, args=ocp.args.Composite(**items))
        return like.replace(
            **restored["train"],
            **restored["model"],
            averaged=restored["average"] if "average" in items else None,
        )

    def _step_folder(self, epoch: int) -> Path:
        return self.folder / f"{epoch:06d}"

    def _verify(self, epoch: int, items: dict[str, PyTree]) -> None:
        """Files are those that were saved, and leaves those that are asked for."""
        folder = self._step_folder(epoch)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            files, stored = dict(manifest["files"]), dict(manifest["leaves"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder}: no readable {MANIFEST} ({error})") from error
        found = _sums(folder)
        for name in sorted(files.keys() | found.keys()):
            if files.get(name) != found.get(name):
                what = "is missing" if name not in found else "differs from its manifest"
                raise CheckpointError(f"{folder / name}: {what}; restore another epoch")
        wanted = _leaves(items)
        differing = [
            f"{leaf}: {stored.get(leaf, 'missing')} there, {wanted.get(leaf, 'missing')} here"
            for leaf in sorted(wanted.keys() | stored.keys())
            if wanted.get(leaf) != stored.get(leaf)
        ]
        if differing:
            raise CheckpointError(
                f"{folder}: {len(differing)} leaves do not fit this model and optimizer: "
                f"{'; '.join(differing[:5])}"
            )


def _items(state: TrainState) -> dict[str, PyTree]:
    items = {
        "model": {"params": state.params, "batch_stats": state.batch_stats},
        "train": {"step": state.step, "opt_state": state.opt_state, "key": state.key},
    }
    if state.averaged is not None:
        items["average"] = state.averaged
    return items


def _leaves(items: dict[str, PyTree]) -> dict[str, str]:
    """Path of each leaf -> dtype and shape."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }


def _sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
