"""Checkpoints of a run: the newest, and the best few by validation loss. The only Orbax import.

A directory, named by the epoch, holds the items `model` (parameters and other variables), `average`
(where one is kept), `train` (optimizer state, step, key, sums of an interrupted epoch) and beside
them a manifest: the sha256 of every file, as Orbax restores a flipped byte without a word, and the
shape of every leaf, as it names none. `save` returns when everything is on disk; the manifest is
written last, and what has none was never saved.

Orbax is imported where it is used: 0.1 s that `--help` and a mistake in a flag need not wait for.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxgear.errors import CheckpointError
from jaxgear.files import write_json
from jaxgear.machine import devices
from jaxgear.training.steps import TrainState

MANIFEST = "manifest.json"
# What a save takes beside its leaves: metadata, shardings, a block for each of some 50 files. Asked
# for in advance, since Orbax prints pages from its threads when the disk fills under it.
OVERHEAD = 1 << 19  # bytes


class Checkpoints:
    """The checkpoints under `folder`, one an epoch: the `keep_latest` newest and the `keep_best` of
    lowest validation loss. A context manager.

    Two newest are kept by default: when the last one is damaged there is one to go back to, and
    the last but one is there until the manifest of the last is.
    """

    def __init__(self, folder: Path, keep_best: int = 3, keep_latest: int = 2):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        self.folder = folder.resolve()  # Orbax wants absolute paths
        if devices.first_host():
            _remove_unfinished(self.folder)
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
                [preservation_policy.LatestN(keep_latest), by_loss]
            ),
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()

    def delete(self, epoch: int) -> None:
        """Removes one checkpoint."""
        self._manager.delete(epoch)

    @property
    def epochs(self) -> list[int]:
        """Epochs that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, epoch: int, val_loss: float) -> None:
        """Writes the state after `epoch`; complete on disk when this returns. All hosts must call.

        Raises:
            CheckpointError: that epoch is there already, or the disk is full or not writable.
        """
        import orbax.checkpoint as ocp

        items = jax.tree.map(_not_empty, _items(state))
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + OVERHEAD
        try:
            if shutil.disk_usage(self.folder).free < size:
                raise OSError(28, "No space left on device")
            saved = self._manager.save(
                epoch, args=ocp.args.Composite(**args), metrics={"val_loss": val_loss}
            )
            if not saved:
                raise CheckpointError(
                    f"{self.folder}: epoch {epoch} is there already, not replaced"
                )
            folder = self._step_folder(epoch)
            if devices.first_host():
                write_json(folder / MANIFEST, {"files": _sums(folder), "leaves": _leaves(items)})
            devices.highest(0)  # no host goes on before the manifest is there
        except (OSError, ValueError) as error:  # ValueError: how Orbax reports a full disk
            if devices.lost_host(error):
                raise  # and JAX another host's end; the run says what to do about it
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"{self._step_folder(epoch)}: {size:,} bytes could not be written ({reason}); "
                "earlier checkpoints are whole"
            ) from error

    def restore(self, like: TrainState, epoch: int) -> TrainState:
        """The state after `epoch`, on the devices of `like`.

        Raises:
            CheckpointError: no such epoch, a file that differs from the manifest, or leaves that do
                not fit `like`.
        """
        import orbax.checkpoint as ocp

        wanted = _items(like)
        items = jax.tree.map(_not_empty, wanted)
        self._verify(epoch, items)
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, items)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in targets.items()}
        read = self._manager.restore(epoch, args=ocp.args.Composite(**items))
        restored = {
            name: jax.tree.map(lambda like, leaf: leaf if like.size else like, tree, read[name])
            for name, tree in wanted.items()
        }
        return like.replace(
            **restored["train"],
            params=restored["model"].pop("params"),
            model_state=restored["model"],
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
                others = ", ".join(str(e) for e in self.epochs if e != epoch) or "none"
                raise CheckpointError(
                    f"{folder / name}: {what}; --from-epoch goes on from another epoch ({others})"
                )
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


def _remove_unfinished(folder: Path) -> None:
    """Removes what a save left that did not finish: Orbax would take it for a checkpoint."""
    for path in sorted(folder.glob("*")):
        name = path.name.partition(".orbax-checkpoint-tmp")[0]
        if name.isdigit() and path.is_dir() and not (path / MANIFEST).is_file():
            print(f"note: {path} was never finished; removed", file=sys.stderr)
            shutil.rmtree(path)


def _reason(error: Exception) -> str:
    """Orbax's paragraph about a full disk, or another's first line."""
    text = str(error)
    return "No space left on device" if "No space left" in text else text.partition("\n")[0][:200]


def _items(state: TrainState) -> dict[str, PyTree]:
    items = {
        "model": {"params": state.params, **state.model_state},
        "train": {
            "step": state.step,
            "opt_state": state.opt_state,
            "key": state.key,
            "totals": state.totals,
        },
    }
    if state.averaged is not None:
        items["average"] = state.averaged
    return items


def _not_empty(leaf: jax.Array) -> jax.Array:
    """Orbax stores no array of size 0, which some optimizers keep: one value stands for it."""
    return leaf if leaf.size else jnp.zeros(1, leaf.dtype)


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
