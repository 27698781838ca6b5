"""A second process finds the programs of the first."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxgear.machine.compile_cache import processor

ROOT = Path(__file__).parents[1]
CODE = """
import sys
import jax
from jaxgear.machine import hosts
from jaxgear.machine.compile_cache import keep_compiled
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
if sys.argv[1:]:
    hosts.join(2, int(sys.argv[1]), sys.argv[2])
keep_compiled()
jax.jit(lambda x: x + 1)(1.0)
print(found.count("/jax/compilation_cache/cache_hits"), jax.config.jax_compilation_cache_dir)
"""


def start(cache, *host, **environment):
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *host], env=own | {"JAXGEAR_CACHE": str(cache)} | environment,
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert host or not done.stderr
    hits, folder = done.stdout.splitlines()[-1].split(maxsplit=1)
    return int(hits), folder.strip()


def test_programs_are_kept_for_this_kind_of_processor(tmp_path):
    folder = str(tmp_path / f"xla-{processor()}")
    assert start(tmp_path) == (0, folder)
    hits, again = start(tmp_path)
    assert hits > 0
    assert again == folder


@pytest.mark.slow
def test_each_of_two_hosts_finds_its_own_programs(tmp_path):
    """JAX alone writes those of the first host."""
    for expected in (0, 1):
        with socket.socket() as free, ThreadPoolExecutor() as both:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            free.close()
            hosts = [both.submit(start, tmp_path / f"{i}", f"{i}", address) for i in (0, 1)]
            assert [host.result()[0] for host in hosts] == [expected] * 2


def test_a_folder_chosen_by_the_user_stays(tmp_path):
    _, folder = start(tmp_path / "cache", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert folder == str(tmp_path / "own")
    assert not (tmp_path / "cache").exists()


def test_no_cache_is_no_obstacle(tmp_path):
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file") == (0, "None")
