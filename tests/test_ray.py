"""A Ray cluster of three nodes, one of which dies: the results are those of one machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from pictures import digests
from PIL import Image
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.cluster import Cluster
from jaxgear.data.prepare import parts
from jaxgear.data.prepare.decoding import staging
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.sources import find_pictures
from jaxgear.data.synthetic.drawn import write_drawn
from jaxgear.data.tfds.read import read_tfds
from jaxgear.errors import DataError, UsageError

pytestmark = pytest.mark.slow


# A head without work and two nodes of a core each, in a process without JAX: Ray forks. It prints
# their address, and kills a node for each line that it reads.
NODES = """
import sys
from ray.cluster_utils import Cluster
store = 80 << 20
ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
nodes = [ray.add_node(num_cpus=1, object_store_memory=store) for _ in range(2)]
print("address", ray.address, flush=True)
for _ in sys.stdin:
    ray.remove_node(nodes.pop(), allow_graceful=False)
    print("killed", flush=True)
ray.shutdown()
"""


class Nodes:
    """The nodes of `NODES`."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([sys.executable, "-c", NODES], text=True, **pipes)
        self.address = self._said("address")

    def kill_one(self):
        print(file=self.process.stdin, flush=True)
        self._said("killed")

    def _said(self, word):
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError("the nodes have ended")


@pytest.fixture(scope="module")
def nodes():
    nodes = Nodes()
    with nodes.process:  # its end of input ends it
        yield nodes
        nodes.process.stdin.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Drawn images, and near-duplicates of twenty of them."""
    root = write_drawn(tmp_path_factory.mktemp("cluster") / "drawn", 1200, size=64)
    for number, file in enumerate(sorted((root / "boots").iterdir())[:20]):
        Image.open(file).convert("RGB").resize((80, 80)).save(root / f"boots/again-{number}.png")
    return root


@pytest.fixture
def cluster(nodes):
    with Cluster(nodes.address) as cluster:
        yield cluster


def test_a_prepared_set_is_that_of_one_machine_though_a_node_dies(
    nodes, cluster, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(staging, "_CLUSTER_TASK", 32)
    monkeypatch.setattr(parts, "JOB", 300)
    killed = []

    def tick(done, total):
        if done == 300:
            nodes.kill_one()
            killed.append(done)

    expected = prepare(folder, tmp_path / "alone", size=32, workers=2)
    spread = prepare(folder, tmp_path / "spread", size=32, cluster=cluster, tick=tick)
    assert killed
    assert digests(spread) == digests(expected)
    groups = read_tfds(f"gear@{tmp_path / 'spread'}", size=32).records.groups
    assert len(set(groups)) < len(groups) - 10


def test_predictions_are_those_of_one_machine(nodes, folder, tmp_path, monkeypatch):
    make_bundle().save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)  # paths from here are found on the nodes
    (tmp_path / "new").symlink_to(folder / "axes")
    tables = []
    out = f"file://{tmp_path}/rows.csv"  # an address
    for more in ([], ["--ray", nodes.address]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["predict", "model", "new", "--csv", out, "--batch-size", "4", *more])
        assert stop.value.code == 0
        tables.append(Path("rows.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") == 101


def test_an_error_of_a_task_is_raised_as_it_is(cluster, tmp_path):
    with pytest.raises(DataError, match=rf"^{tmp_path}/first\*"):
        list(cluster.map(find_pictures, [tmp_path / "first*", tmp_path / "second*"]))


def test_a_function_that_nodes_do_not_know_is_one_line(cluster):
    with pytest.raises(DataError, match=r"^Ray gave up \(.*No module named 'pictures'\)"):
        list(cluster.map(digests, [Path()]))


def test_no_cluster_is_said_in_one_line():
    with pytest.raises(UsageError, match=r"^--ray 127\.0\.0\.1:9: no Ray cluster is there \(.*\)$"):
        Cluster("127.0.0.1:9")
