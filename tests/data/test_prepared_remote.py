"""A set at an address is the set of a folder, grows there, and is whole or not seen."""

import hashlib
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pictures import digests, write_set

from jaxgear import cli
from jaxgear.data.images import decode
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.prepare.remote import prepare_at
from jaxgear.data.tfds.read import read_tfds
from jaxgear.errors import DataError, UsageError

OPTIONS = {"size": 24, "workers": 1, "say": lambda line: None}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "cache"))
    return write_set(tmp_path / "data", {"axes": 4, "boots": 4})


@pytest.fixture(params=["memory", "file"])
def bucket(tmp_path, request) -> str:
    (tmp_path / "bucket/sets").mkdir(parents=True)
    where = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/bucket"}
    return f"{where[request.param]}/sets"


@pytest.fixture
def system(bucket):
    """The file system of the address."""
    return fsspec.core.url_to_fs(bucket)[0]


def at(system, bucket: str) -> dict[str, str]:
    """As `digests`."""
    base = system._strip_protocol(bucket)
    return {
        path.removeprefix(f"{base}/"): hashlib.sha256(system.cat(path)).hexdigest()
        for path in system.find(base)
    }


def test_a_set_at_an_address_is_that_of_a_folder_and_grows(
    root, bucket, system, tmp_path, monkeypatch
):
    expected = tmp_path / "here"
    prepare(root, expected, **OPTIONS)
    assert prepare_at(root, bucket, **OPTIONS) == f"{bucket}/gear/1.0.0"
    assert at(system, bucket) == digests(expected)
    assert prepare_at(root, bucket, **OPTIONS) == f"{bucket}/gear/1.0.0"  # nothing has changed
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    write_set(tmp_path / "more", {"new": 20})
    shutil.copy(tmp_path / "more/new/00019.png", root / "axes/later.png")
    prepare(root, expected, **OPTIONS)
    read, real = [], decode._decode
    monkeypatch.setattr(decode, "_decode", lambda *given: read.append(given) or real(*given))
    assert prepare_at(root, bucket, **OPTIONS) == f"{bucket}/gear/2.0.0"
    assert len(read) == 1  # the others were decoded for the first version
    assert at(system, bucket) == digests(expected)
    here, there = (read_tfds(f"gear@{place}", size=16) for place in (expected, bucket))
    assert list(here.records) == list(there.records)
    record = next(iter(there.records))
    np.testing.assert_array_equal(here.read(record), there.read(record))


def test_a_killed_upload_is_not_seen_and_is_made_up_for(root, bucket, system, monkeypatch):
    real = type(system).put_file

    def broken(self, here, there, **options):
        if there.endswith("SHA256SUMS"):
            raise ConnectionError("gone")
        real(self, here, there, **options)

    with monkeypatch.context() as failing:
        failing.setattr(type(system), "put_file", broken)
        with pytest.raises(DataError, match=rf"^{bucket}: gone"):
            prepare_at(root, bucket, **OPTIONS)
    assert at(system, bucket)
    with pytest.raises(DataError, match="no prepared TFDS set there"):
        read_tfds(f"gear@{bucket}")
    monkeypatch.setattr(decode, "_decode", None)  # the images are in the cache
    prepare_at(root, bucket, **OPTIONS)
    assert len(read_tfds(f"gear@{bucket}", size=16).records) == 8


def test_what_cannot_be_written_is_said_before_the_work(root, bucket, capsys, monkeypatch):
    monkeypatch.setattr(decode, "_decode", None)
    with pytest.raises(UsageError, match=r"^file:///proc/sets: cannot be written"):
        prepare_at(root, "file:///proc/sets", **OPTIONS)
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", str(root), bucket, "--part", "1/2"])
    assert stop.value.code == 2
    assert "parts meet in a folder" in capsys.readouterr().err
