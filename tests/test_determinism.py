"""Same seed and pictures, same bits: in one process, in another, from a copy of the folder."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import encoded, scene

ROOT = Path(__file__).parents[1]
CODE = """
import sys, hashlib, json
import jax, numpy as np, optax
from jaxgear.data.augment import affine, chain, colour, flip, mixup
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import open_dataset
from jaxgear.models.convnet import Conv, ConvNet, Dropout, GlobalPool
from jaxgear.training import loop, steps
from jaxgear.training.progress import Progress

def fingerprint(root, seed):
    dataset = open_dataset(root, size=16, seed=seed, say=lambda line: None)
    split = {name: dataset.split(name) for name in ("train", "val")}
    train, val = (Batches(s.images, s.labels, 8, seed, s.names) for s in split.values())
    model = ConvNet([Conv(4), Dropout(0.2), GlobalPool()], classes=2)
    tx = optax.adam(1e-2)
    state = steps.init_state(model, tx, train.images[:1], seed=seed, average=True)
    *_, (state, row) = loop.epochs(
        state, train, val, first=1, last=2, schedule=lambda step: 1e-2, classes=2,
        augment=chain(flip(), affine(), colour()), mix=mixup(0.2), progress=Progress(quiet=True),
        loss=steps.smoothed_cross_entropy(0.1),
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((state.params, state.averaged, state.model_state)):
        digest.update(np.asarray(leaf).tobytes())
    splits = sorted(
        (r.path, r.sha256, group, split)
        for r, group, split in zip(dataset.folder.records, dataset.groups, dataset.splits)
    )
    digest.update(json.dumps(splits).encode())
    return digest.hexdigest(), row.train_loss, row.val_loss

root, *seeds = sys.argv[1:]
for seed in seeds:
    print(*fingerprint(root, int(seed)))
"""


def copy_of_the_folder(root: Path, order: int) -> Path:
    """The same files, written in another order and at other times."""
    files = [(name, seed) for seed in range(40) for name in ("axes", "boots")]
    random.Random(order).shuffle(files)
    for name, seed in files:
        path = root / name / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(scene(seed + 100 * (name == "boots"))))
        os.utime(path, (order * 1e6, seed))
    return root


@pytest.mark.slow
def test_one_process_another_process_and_another_copy_agree(tmp_path):
    lines = []
    for number, seeds in enumerate((["3", "3", "4"], ["3"])):
        root = copy_of_the_folder(tmp_path / f"copy{number}", number)
        environment = {"PYTHONHASHSEED": str(number), "JAXGEAR_CACHE": str(tmp_path / f"c{number}")}
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(root), *seeds],
            capture_output=True, text=True, cwd=ROOT, env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines())
    (first, again, other_seed), (elsewhere,) = lines
    assert first == again == elsewhere
    assert other_seed.split()[0] != first.split()[0]
    assert other_seed.split()[1] != first.split()[1]
