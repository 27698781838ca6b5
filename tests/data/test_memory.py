"""Free memory of the machine, within every limit of this process, or unknown."""

import os
from pathlib import Path

import pytest

from jaxgear.machine import memory

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with 64 GB free; writes its system files, with values in bytes."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")

    def write(name: str, text: object) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    write("proc/meminfo", f"MemTotal: 99 kB\nMemAvailable: {64 * GB // 1024} kB")
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 10**6, raising=False)
    return write


def limit(system, folder: str, limit: object, used: int, version: int = 2, files: int = 0) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    system(f"cgroup/{folder}/{names[0]}", limit)
    system(f"cgroup/{folder}/{names[1]}", used)
    system(f"cgroup/{folder}/memory.stat", f"anon 5\n{names[2]} {files}")


def test_that_of_this_machine():
    assert 2**24 < memory.free_memory() < 2**50


def test_without_limits_it_is_what_is_available(system):
    assert memory.free_memory() == 64 * GB // 1024 * 1024


@pytest.mark.parametrize("tight", ["slurm", "slurm/job_7", "slurm/job_7/step_0/task_1"])
def test_the_tightest_of_nested_limits(system, tight: str):
    """A batch system limits the job; the process is some levels below."""
    system("proc/self/cgroup", "0::/slurm/job_7/step_0/task_1")
    for folder in ("slurm", "slurm/job_7", "slurm/job_7/step_0", "slurm/job_7/step_0/task_1"):
        limit(system, folder, "max", 2 * GB)
    limit(system, tight, 8 * GB, 3 * GB)
    assert memory.free_memory() == 5 * GB


def test_a_container_that_sees_the_path_of_its_host(system):
    system("proc/self/cgroup", "0::/kubepods/pod1/abc")
    limit(system, ".", 4 * GB, GB)
    assert memory.free_memory() == 3 * GB


@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_limits_of_version_1(system, controllers: str):
    system("proc/self/cgroup", f"9:cpuset:/x\n4:{controllers}:/job/step\n0::/")
    limit(system, "memory", 9223372036854771712, GB, version=1)  # none
    limit(system, "memory/job", 6 * GB, GB, version=1)
    limit(system, "memory/job/step", 9223372036854771712, GB, version=1)
    assert memory.free_memory() == 5 * GB


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_were_read_can_be_forgotten(system, version: int):
    system("proc/self/cgroup", "0::/" if version == 2 else "4:memory:/")
    folder = "." if version == 2 else "memory"
    limit(system, folder, 8 * GB, 8 * GB, version, files=6 * GB)
    assert memory.free_memory() == 6 * GB


def test_more_than_the_limit_is_nothing(system):
    system("proc/self/cgroup", "0::/a")
    limit(system, "a", GB, 2 * GB)
    assert memory.free_memory() == 0


def no_such_name(name: str) -> int:
    raise ValueError("unrecognized configuration name")  # what macOS says


@pytest.mark.parametrize("sysconf", [no_such_name, None])
def test_where_nothing_tells_it_is_unknown(tmp_path: Path, monkeypatch, sysconf):
    """macOS, and Windows, which has no `sysconf`."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    if sysconf is None:
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", sysconf)
    assert memory.free_memory() is None
