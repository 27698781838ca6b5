"""Devices and hosts: a mesh with one axis, `data`, along which batches are split.

All other arrays are replicated, or split by `fsdp` if the state is large. A process has its own
devices; `hosts.join` joins the devices of several processes (hosts) into one mesh. With one device,
arrays are plain arrays.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Num, PyTree

from jaxgear.errors import UsageError

AXIS = "data"
Layout = Callable[[Mesh, np.ndarray | Array], NamedSharding]  # the sharding of a leaf of the state


def check_switches() -> None:
    """Raises UsageError if JAX is set to compute in a way that jaxgear and optax do not expect."""
    switches = {
        "jax_enable_x64": False,
        "jax_numpy_rank_promotion": "allow",
        "jax_numpy_dtype_promotion": "standard",
    }
    for name, expected in switches.items():
        if (value := getattr(jax.config, name)) != expected:
            raise UsageError(
                f"{name.upper()}={value}: training is in float32 with JAX's usual promotion; "
                "unset it, or set it back with jax.config.update"
            )


def first_host() -> bool:
    """Whether this process is the first host, which writes files and prints."""
    return jax.process_index() == 0


def fast_dtype() -> str:
    """The dtype for networks to compute in: bfloat16 on accelerators, float32 on CPUs.

    Parameters, statistics and loss stay float32. On a GPU, two runs gave the same history when the
    second used cached programs. A newly compiled program may choose other kernels.
    """
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def all_devices() -> Mesh:
    """A mesh of all devices of all hosts."""
    return mesh_of(jax.devices())


def mesh_of(chosen: Sequence[jax.Device]) -> Mesh:
    """A mesh of these devices."""
    # Auto, because with Explicit a scatter needs the sharding of its output.
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def replicated(mesh: Mesh, leaf: Any = None) -> NamedSharding:
    """The sharding that puts a whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def fsdp(mesh: Mesh, leaf: np.ndarray | Array) -> NamedSharding:
    """The sharding that splits a leaf along the longest axis that the devices divide.

    Small leaves are replicated. This is fully sharded data parallelism (Zhao et al. 2023):
    parameters and optimizer state are stored once and gathered where a layer needs them.
    """
    axes = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % mesh.size == 0]
    if leaf.size < 1024 or not axes:
        return replicated(mesh)
    axis = max(axes, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def check_divides(batch_size: int, mesh: Mesh, flag: str) -> None:
    """Raises UsageError unless the devices divide the batch equally."""
    if batch_size % mesh.size:
        raise UsageError(f"{flag} {batch_size}: must be a multiple of the {mesh.size} devices")


def place(tree: PyTree, mesh: Mesh, layout: Layout = replicated) -> PyTree:
    """Puts arrays that are the same on every host on the devices of a mesh.

    An array that is there already, in that layout, is returned as it is.
    """
    if mesh.size == 1:
        return jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(lambda leaf: _place(leaf, mesh, layout), tree)


def _place(leaf: Any, mesh: Mesh, layout: Layout) -> Array:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(leaf), mesh, replicated)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and leaf.sharding == layout(mesh, leaf):
        return leaf  # restored so: no host needs to hold the whole of it
    leaf = np.asarray(local(leaf))
    return jax.make_array_from_callback(leaf.shape, layout(mesh, leaf), lambda part: leaf[part])


def place_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts this host's rows on its devices; returns the arrays of all hosts' rows."""
    if mesh.size == 1:
        return jax.device_put(tree)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(by_rows(mesh), rows), tree
    )


def shapes(tree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of arrays, to compile for them after they were donated."""

    def shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=leaf.sharding if leaf.committed else None,
            weak_type=leaf.aval.weak_type,
        )

    return jax.tree.map(shape, tree)


def local(tree: PyTree) -> PyTree:
    """Whole arrays on one device of this process, from arrays on any mesh."""
    return jax.tree.map(_local, tree)


def _local(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _local(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    if leaf.is_fully_addressable:
        return jax.device_put(leaf, leaf.addressable_shards[0].device)
    return jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def highest(number: int) -> int:
    """The maximum over hosts. Collective: every host must call it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def from_all(rows: Num[np.ndarray, "..."]) -> Num[np.ndarray, "H ..."]:
    """The arrays of all hosts, of one shape. Collective: every host must call it."""
    if jax.process_count() == 1:
        return rows[np.newaxis]
    return multihost_utils.process_allgather(rows)


def from_first(text: str) -> str:
    """The first host's text. Collective: every host must call it."""
    if jax.process_count() == 1:
        return text
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.resize(data, length) if len(data) else np.zeros(length, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(padded)).decode()
