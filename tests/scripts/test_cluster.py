"""The files for clusters start experiments with flags that those have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pictures import write_set

from experiments import scratch
from jaxgear.experiment.flags import parse

CLUSTER = Path(__file__).parents[2] / "scripts" / "cluster"


def test_slurm_starts_the_experiment_on_every_node(tmp_path):
    """With an `srun` that prints what it was told."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python"}
    command = ["bash", CLUSTER / "slurm.sh", "--data", "tfds:gear@SET", "--out", "a b"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    kill, python, flag, module, *flags = done.stdout.splitlines()
    assert (kill, python, flag, module) == (
        *("--kill-on-bad-exit", "python", "-m", "experiments.scratch"),
    )
    config = parse(scratch.Config, flags)
    assert (config.hosts, config.data, config.out) == (0, "tfds:gear@SET", "a b")
    assert config.resume == ""


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(1, 0, True), (137, 3, True), (1, 10, False), (2, 0, False)]
)
def test_slurm_queues_a_lost_job_again_and_goes_on_from_the_newest_run(
    code, restarts, requeued, tmp_path
):
    """With an `srun` that fails, and a `scontrol` that says what it was told."""
    for name, end in (("srun", f"exit {code}"), ("scontrol", "")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n{end}\n')
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    env |= {"SLURM_RESTART_COUNT": str(restarts)}
    command = ["bash", CLUSTER / "slurm.sh", "--out", "runs"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    assert done.returncode == code
    srun, *rest = done.stdout.splitlines()
    assert srun.endswith("--out runs --resume latest" if restarts else "--out runs")
    assert rest == ["scontrol requeue 77"] * requeued


def test_an_array_decodes_the_parts_of_a_set_and_says_how_to_join_them(tmp_path):
    folder, out = write_set(tmp_path / "my data", {"axes": 12, "boots": 12}), tmp_path / "out"
    words = [folder, out, "--size", "16", "--workers", "1"]
    said = []
    for part in ("1", "2"):
        env = os.environ | {"PYTHON": sys.executable}
        env |= {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2"}
        command = ["bash", CLUSTER / "prepare.sh", *words]
        said += subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=env
        ).stdout.splitlines()
    joining = said[0].removeprefix("when all parts are done: ")
    subprocess.run(["bash", "-c", joining], check=True, stdout=subprocess.PIPE)
    assert (out / "gear" / "1.0.0" / "dataset_info.json").is_file()


def test_kubernetes_starts_as_many_hosts_as_there_are_pods():
    service, job = yaml.safe_load_all((CLUSTER / "job.yaml").read_text())
    spec = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == spec["subdomain"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    (line,) = spec["containers"][0]["args"]
    assert line.startswith("exec python -m experiments.scratch ")
    flags = line.replace("$JOB_COMPLETION_INDEX", "3").split()[4:]
    config = parse(scratch.Config, flags)
    assert config.hosts == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert config.host_id == 3
    first = config.coordinator.partition(":")[0]
    assert first == f"{job['metadata']['name']}-0.{spec['subdomain']}"
