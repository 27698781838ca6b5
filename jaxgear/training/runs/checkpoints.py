"""Checkpoints of a run: the newest, and the best few by validation loss. The only Orbax import.

A folder per epoch holds the items `model` (parameters and other variables), `average` (if the state
keeps one) and `train` (optimizer state, step, key, sums of an interrupted epoch). With several
hosts each writes a part, even of a replicated state. The folder also holds a manifest. It has the
sha256 of every file, because Orbax restores damaged bytes silently, and the shape of every leaf,
because Orbax does not name leaves that do not fit. `save` returns when everything is on disk. It
writes the manifest last, so a folder without one is unfinished.

Orbax is imported inside functions: it takes 0.1 s, and `--help` and flag errors need not wait.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxgear.errors import CheckpointError, first_line
from jaxgear.files import write_json
from jaxgear.machine import devices, hosts
from jaxgear.training.state import TrainState

MANIFEST = "manifest.json"
# Disk space of a save beside its leaves: metadata, shardings, a block for each of some 50 files.
# Checked in advance, because Orbax's threads print pages of errors when the disk fills up.
OVERHEAD = 1 << 19  # bytes


class Checkpoints:
    """The checkpoints under `folder`, one per epoch. A context manager.

    It keeps the `keep_latest` newest and the `keep_best` of lowest validation loss. The default
    keeps the two newest: if the last one is damaged or unfinished, the one before it remains.
    """

    def __init__(self, folder: Path, keep_best: int = 3, keep_latest: int = 2):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        self.folder = folder.resolve()  # Orbax wants absolute paths
        if devices.first_host():
            _remove_unfinished(self.folder)

        def rank(metrics: dict[str, float]) -> tuple[float, float]:  # as `history.Row.rank`
            return -metrics.get("size", 0), metrics["val_loss"]

        by_loss = preservation_policy.BestN(get_metric_fn=rank, reverse=True, n=keep_best)
        options = ocp.CheckpointManagerOptions(
            step_format_fixed_length=6,
            cleanup_tmp_directories=True,
            # The policy alone is not enough: Orbax would take the newest for the best.
            best_fn=rank,
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
        """Releases the folder."""
        self._manager.close()

    def delete(self, epoch: int) -> None:
        """Removes one checkpoint."""
        self._manager.delete(epoch)

    @property
    def epochs(self) -> list[int]:
        """Epochs that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, epoch: int, val_loss: float, size: int | None = None) -> None:
        """Writes the state after `epoch`; it is on disk on return. Collective: every host calls it.

        Args:
            size: side of the images of that epoch, with progressive resizing.

        Raises:
            CheckpointError: that epoch exists already, or the disk is full or not writable.
        """
        import orbax.checkpoint as ocp

        items = jax.tree.map(_not_empty, _items(state))
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items)) + OVERHEAD
        try:
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(28, "No space left on device")
            metrics = {"val_loss": val_loss} | ({} if size is None else {"size": size})
            saved = self._manager.save(epoch, args=ocp.args.Composite(**args), metrics=metrics)
            if not saved:
                raise CheckpointError(
                    f"{self.folder}: epoch {epoch} exists already and was not replaced"
                )
            folder = self._step_folder(epoch)
            manifest = {"files": _sums(folder), "leaves": _leaves(items)}
            if devices.first_host():
                write_json(folder / MANIFEST, manifest)
            devices.highest(0)  # a barrier: no host continues before the manifest exists
        except (OSError, ValueError) as error:  # ValueError: how Orbax reports a full disk
            if hosts.lost_host(error):
                raise  # JAX reports a lost host as one too; the run turns it into advice
            reason = getattr(error, "strerror", None) or _reason(error)
            raise CheckpointError(
                f"{self._step_folder(epoch)}: {needed:,} bytes could not be written ({reason}); "
                "earlier checkpoints are whole"
            ) from error

    def restore(self, like: TrainState, epoch: int) -> TrainState:
        """The state after `epoch`, on the devices of `like`. Collective: every host calls it.

        Raises:
            CheckpointError: the epoch is missing, a file differs from the manifest, or leaves do
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
        """Checks the files against the manifest, and the manifest's leaves against `items`."""
        folder = self._step_folder(epoch)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            files, stored = dict(manifest["files"]), dict(manifest["leaves"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder}: no readable {MANIFEST} ({error})") from error
        sums = _sums(folder)
        for name in sorted(files.keys() | sums.keys()):
            if files.get(name) != sums.get(name):
                fault = "is missing" if name not in sums else "differs from its manifest"
                others = ", ".join(str(e) for e in self.epochs if e != epoch) or "none"
                raise CheckpointError(
                    f"{folder / name}: {fault}; use --from-epoch to continue from another epoch "
                    f"({others})"
                )
        wanted = _leaves(items)
        differing = [
            f"{leaf}: {stored.get(leaf, 'missing')} saved, {wanted.get(leaf, 'missing')} needed"
            for leaf in sorted(wanted.keys() | stored.keys())
            if wanted.get(leaf) != stored.get(leaf)
        ]
        if differing:
            raise CheckpointError(
                f"{folder}: {len(differing)} leaves do not fit this model and optimizer: "
                f"{'; '.join(differing[:5])}"
            )


def _remove_unfinished(folder: Path) -> None:
    """Removes the folders of unfinished saves: Orbax would take them for checkpoints."""
    for path in sorted(folder.glob("*")):
        name = path.name.partition(".orbax-checkpoint-tmp")[0]
        if name.isdigit() and path.is_dir() and not (path / MANIFEST).is_file():
            print(f"note: {path} was never finished; removed", file=sys.stderr)
            shutil.rmtree(path)


def _reason(error: Exception) -> str:
    """A short reason: "No space left on device", or the first line of the error."""
    full = "No space left on device"
    return full if full in str(error) else first_line(error)


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
    """Replaces an array of size 0, which some optimizers keep, by one value: Orbax stores no empty
    arrays.
    """
    return leaf if leaf.size else jnp.zeros(1, leaf.dtype)


def _leaves(items: dict[str, PyTree]) -> dict[str, str]:
    """The dtype and shape of each leaf, by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }


def _sums(folder: Path) -> dict[str, str]:
    """The sha256 of each file. Collective: each host reads a part of the files."""
    listed = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    ]
    names = json.loads(devices.from_first(json.dumps(listed)))
    sums = np.zeros((len(names), 32), np.uint8)
    for number in range(jax.process_index(), len(names), jax.process_count()):
        content = (folder / names[number]).read_bytes()
        sums[number] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    sums = devices.from_all(sums).max(axis=0)  # of the others: 0
    return dict(zip(names, (row.tobytes().hex() for row in sums), strict=True))
