"""One of two hosts: saves a state in both layouts, reads each in both, and says if it is equal.

python -m tests.sharded_state OUT --hosts 2 --coordinator ADDRESS:PORT --host-id I
"""

import argparse
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgear.machine import devices, hosts
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import steps
from jaxgear.training.runs.checkpoints import Checkpoints

LAYOUTS = {"split": devices.fsdp, "whole": devices.replicated}


def made(seed):
    """A state of random numbers, moments of Adam too, on one device; 0.9 MB."""
    model = ConvNet([Conv(64), Conv(64), GlobalPool()], classes=3)
    state = steps.init_state(model, optax.adam(1e-3), np.zeros((1, 8, 8, 3), np.uint8), seed, True)
    rng = np.random.default_rng(seed)
    random = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype) if x.size > 1 else x  # noqa: E731
    parts = {name: getattr(state, name) for name in ("params", "averaged", "opt_state")}
    return state.replace(**jax.tree.map(random, parts))


def assert_equal(state, expected):
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    for flag, kind in (("hosts", int), ("coordinator", str), ("host-id", int)):
        parser.add_argument(f"--{flag}", type=kind)
    given = parser.parse_args()
    hosts.join(given.hosts, given.host_id, given.coordinator)
    mesh = devices.all_devices()
    states = {name: devices.place(made(1), mesh, layout) for name, layout in LAYOUTS.items()}
    half = states["split"].params["layers_1"]["conv"]["kernel"]
    assert half.addressable_data(0).size == half.size // 2
    for saved, state in states.items():
        with Checkpoints(given.out / saved) as checkpoints:
            checkpoints.save(state, 1, 0.5)
            for layout in LAYOUTS.values():
                like = devices.place(made(2), mesh, layout)
                restored = checkpoints.restore(like, 1)
                assert restored.params["layers_1"]["conv"]["kernel"].sharding == layout(mesh, half)
                assert devices.place(restored, mesh, layout).params == restored.params
                assert_equal(devices.local(restored), devices.local(state))
    print("equal", flush=True)
    devices.highest(0)  # a barrier
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
