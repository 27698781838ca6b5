"""Weights and bundles of strangers: loaded, or refused by name; nothing run, nothing written, no
more memory or time than their size explains.
"""

import copy
import hashlib
import itertools
import json
import math
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import limited, no_warnings, state
from models.other_names import keras, keras_layers, write_tfjs
from models.random_weights import torchvision_weights
from mutation import mutated
from safetensors.numpy import save
from small_bundle import make_bundle

from jaxgear.bundle.bundle import Bundle
from jaxgear.errors import CheckpointError
from jaxgear.models.convnet import Conv, ConvNet, Dense, Dropout, GlobalPool, Pool, Residual
from jaxgear.models.pretrained.backbone import load_backbone, save_backbone

GOLDEN = Path(__file__).parents[1] / "models/golden"
OLDER = Path(__file__).parents[1] / "older_bundle"  # of version 3, whose card has the network
NUMBERS = [0, -1, 3, 10**9, 10**12, 2**63, 10**30, 10**400, 0.5, -0.0, 1e300, math.nan, math.inf]
WORDS = ["", "x" * 2000, "\ud800", "\x1b[2J\n", "../../x", "/etc/passwd", "Conv", "float64", "os"]
HOSTILE = st.sampled_from([None, True, False, *NUMBERS, *WORDS, [], {}, [[]], [0] * 100])


@st.composite
def damaged(draw: st.DrawFn, value, most: int = 3) -> str:
    """JSON text of `value` after one to `most` changes anywhere in it."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(value))
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "replace", "remove", "nest", "many", "move"]))
        if change == "replace":
            holder[key] = copy.deepcopy(draw(HOSTILE))
        elif change == "remove":
            del holder[key]
        elif change == "nest":
            holder[key] = [holder[key]] if draw(st.booleans()) else {"module": holder[key]}
        elif change == "many":
            most = 1_000_000 // len(json.dumps(holder[key]))
            holder[key] = [holder[key]] * min(most, draw(st.sampled_from([2, 50, 5000])))
        else:
            other, there = draw(st.sampled_from(places))
            try:
                holder[key] = json.loads(json.dumps(other[there]))
            except LookupError:  # it is gone already
                holder[key] = None
        if not value:
            break
    text = json.dumps(value)
    extra = draw(st.sampled_from([None] * 12 + ["deep", "twice", "digits"]))
    if extra == "deep":
        text = text.replace(":", ": " + "[" * 100_000 + "]" * 100_000 + ', "z":', 1)
    elif extra == "twice":
        text = text.replace("{", '{"version": 1, "version": 2, "name": 3, "name": 4, ', 1)
    elif extra == "digits":
        text = text.replace(": ", ": " + "9" * 10_000 + ', "z": ', 1)
    return text


def _places(value):
    """Every (holder, key) in nested lists and objects."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def attack(examples, strategy):
    """Runs a check on many inputs; fewer are the same each time, so that the quick suite is."""

    def decorate(check):
        number = itertools.count(1)

        def checked(found):
            check(found)
            if next(number) % 50 == 0:
                jax.clear_caches()  # networks that were traced: some megabytes each

        run = settings(max_examples=examples, deadline=None, derandomize=True,
                       database=None, suppress_health_check=list(HealthCheck))(
                           given(strategy)(checked))  # fmt: skip
        with no_warnings():
            run()

    return decorate


def refused_or_loaded(load, path: Path) -> bool:
    """Whether it was loaded. The other way out is one line that names the file."""
    message = None
    with limited():
        try:
            load(path)
        except CheckpointError as error:
            message = str(error)
    if message is None:
        return True
    assert path.name in message
    assert len(message.splitlines()) == 1
    assert len(message) < 2000
    assert message.isprintable()
    message.encode()
    return False


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, bytes]:
    """One small file of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    save_backbone(load_backbone(GOLDEN / "resnet18_width2.pth"), folder / "own.safetensors")
    return {
        "own": (folder / "own.safetensors").read_bytes(),
        "torchvision": save(torchvision_weights(18, 1)),
        "pth": (GOLDEN / "resnet18_width2.pth").read_bytes(),
        "odd": (GOLDEN / "odd.pth").read_bytes(),
    }


@pytest.mark.parametrize("examples", [60, pytest.param(250, marks=pytest.mark.slow)])
def test_bytes_of_weight_files(examples, weights, tmp_path):
    path = tmp_path / "weights.bin"

    @attack(examples, mutated(list(weights.values())))
    def check(data):
        path.write_bytes(data)
        before = state(tmp_path)
        refused_or_loaded(load_backbone, path)
        assert state(tmp_path) == before


@pytest.mark.parametrize("examples", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_headers_of_safetensors(examples, weights, tmp_path):
    """Offsets, shapes and dtypes that overflow, overlap or are no numbers."""
    path = tmp_path / "weights.safetensors"
    headers = {}
    for name in ("own", "torchvision"):
        size = int.from_bytes(weights[name][:8], "little")
        headers[name] = json.loads(weights[name][8 : 8 + size]), weights[name][8 + size :]
        for holder in headers[name][0].values():
            if "jaxgear" in holder:
                holder["jaxgear"] = json.loads(holder["jaxgear"])

    both = st.sampled_from(sorted(headers)).flatmap(
        lambda name: st.tuples(st.just(name), damaged(headers[name][0], 2))
    )

    @attack(examples, both)
    def check(found):
        name, text = found
        if '"jaxgear": {' in text and '": {"jaxgear"' in text:  # JSON within JSON
            start = text.index('"jaxgear": {') + len('"jaxgear": ')
            end = text.index('}, "sha256"', start) + 1 if '}, "sha256"' in text[start:] else -1
            if end > 0:
                text = text[:start] + json.dumps(text[start:end]) + text[end:]
        content = text.encode("utf-8", "surrogatepass")
        path.write_bytes(struct.pack("<Q", len(content)) + content + headers[name][1])
        refused_or_loaded(load_backbone, path)


@pytest.mark.parametrize("examples", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_descriptions_of_tensorflow_js(examples, tmp_path):
    source = keras(torchvision_weights(50, 1), new=False)
    path = write_tfjs(tmp_path / "model", source, keras_layers(source, 1e-3, "res[345]a_branch2a"))
    (tmp_path / "secret").write_bytes(b"secret")
    original = json.loads(path.read_text())

    @attack(examples, damaged(original))
    def check(text):
        path.write_text(text, errors="surrogatepass")
        before = state(tmp_path)
        refused_or_loaded(load_backbone, path)
        assert state(tmp_path) == before


class Runs:
    """Pickled, this asks the reader to call `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested(levels: int) -> bytes:
    """A tuple that holds one twice, that holds one twice, and so on: 2**levels to hash or print."""
    return b")" + b"2\x86" * levels


@pytest.mark.parametrize(
    "data",
    [
        *(pickle.dumps(Runs(f, *a)) for f, a in (
            (os.system, ("touch canary",)), (exec, ("open('canary','w')",)),
            (open, ("canary", "w")), (shutil.rmtree, (".",)), (os.mkdir, ("canary",)))),
        b"}" + nested(80) + b"K\x01s.",
        b"}(" + nested(80) + b"K\x01u.",
        b"(" + nested(80) + b"K\x01d.",
        b"\x8f(" + nested(80) + b"\x90.",
        b"}\x8c\x01a" + nested(80) + b"s.",
        b"}\x8c\x01actorch._utils\n_rebuild_tensor_v2\n(N" + nested(80) + b"2K\x01tRs.",
        b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpu" + nested(80) + b"tQ.",
        b"]\x94" * (2 * 2**20 - 1) + b".",  # and remembered
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
        b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
        b"r" + struct.pack("<I", 2**32 - 1) + b".",
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_crafted_pickles(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/data/0", bytes(16))
    before = state(tmp_path)
    assert not refused_or_loaded(load_backbone, path)
    assert state(tmp_path) == before


@pytest.mark.parametrize("examples", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_opcodes(examples, tmp_path, monkeypatch):
    """Programs of the pickle machine at random, with what would show if it called anything."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(GOLDEN / "odd.pth") as file:
        (name,) = (n for n in file.namelist() if n.endswith("data.pkl"))
        good = file.read(name)
        storages = {n: file.read(n) for n in file.namelist() if n != name}
    calls = [
        *(b"cos\nsystem\n", b"\x8c\x05posix\x8c\x06system\x93", b"X\x0c\0\0\0touch canary"),
        *(b"\x85R", b"(tR", b"o", b"\x81", b"b", b"cbuiltins\neval\n", b"iposix\nsystem\n"),
    ]
    pieces = st.lists(st.sampled_from(calls) | st.binary(max_size=6), max_size=8).map(b"".join)
    programs = mutated([good]) | st.tuples(st.integers(0, len(good)), pieces).map(
        lambda found: good[: found[0]] + found[1] + good[found[0] :]
    )

    @attack(examples, programs)
    def check(data):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, data)
            for other, content in storages.items():
                file.writestr(other, content)
        refused_or_loaded(load_backbone, path)
        assert os.listdir(tmp_path) == ["evil.pth"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["../../canary", "/tmp/canary", "a/../../canary", "C:\\canary"])
def test_names_in_a_zip_lead_nowhere(name, tmp_path):
    """Nothing is unpacked: a name is a key, not a path."""
    path = tmp_path / "in" / "evil.pth"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/data.pkl", b"}.")
        file.writestr(name, b"x")
    before = state(tmp_path)
    assert not refused_or_loaded(load_backbone, path)
    assert state(tmp_path) == before


MODEL = ConvNet(
    [Conv(4), Pool(), Residual(), Dropout(0.1), GlobalPool(), Dense(5)], classes=3
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "bundle"
    make_bundle(MODEL, known={"0a" * 32: "train"}).save(folder)
    return folder


def check_loaded(folder: Path) -> None:
    """What is loaded can be used."""
    bundle = Bundle.load(folder)
    assert 1 <= bundle.size <= 4096
    assert math.isfinite(bundle.temperature)
    assert all(name.isprintable() for name in bundle.classes)
    bundle.split_of("0a" * 32)


@pytest.mark.parametrize(
    ("examples", "version"),
    [(10, 3), (60, 4), *(pytest.param(100, v, marks=pytest.mark.slow) for v in (3, 4))],
)
def test_cards_of_bundles(examples, version, sound, tmp_path):
    folder = Path(shutil.copytree(OLDER if version == 3 else sound, tmp_path / "bundle"))
    original = json.loads((folder / "bundle.json").read_text())
    loaded = []

    @attack(examples, damaged(original))
    def check(text):
        (folder / "bundle.json").write_text(text, errors="surrogatepass")
        before = state(tmp_path)
        loaded.append(refused_or_loaded(check_loaded, folder))
        assert state(tmp_path) == before

    assert any(loaded) or examples == 10, "some changes are harmless, as of `about`"


@pytest.mark.parametrize("examples", [30, pytest.param(250, marks=pytest.mark.slow)])
def test_files_of_bundles(examples, sound, tmp_path):
    """Damaged and then signed: the hashes in the card are those of the damaged files.

    Damaged programs can end the process: test_hostile_programs.py has others for them.
    """
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    names = ["weights.safetensors", "pictures.safetensors"]
    contents = {name: (folder / name).read_bytes() for name in names}
    card = json.loads((folder / "bundle.json").read_text())
    choices = st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), mutated([contents[name]], 2))
    )

    @attack(examples, choices)
    def check(found):
        name, data = found
        (folder / name).write_bytes(data)
        sha256 = card["sha256"] | {name: hashlib.sha256(data).hexdigest()}
        (folder / "bundle.json").write_text(json.dumps(card | {"sha256": sha256}))
        refused_or_loaded(check_loaded, folder)
        (folder / name).write_bytes(contents[name])


def edited(folder: Path, **changes) -> Path:
    card = json.loads((folder / "bundle.json").read_text()) | changes
    (folder / "bundle.json").write_text(json.dumps(card))
    return folder


def network(*layers, **fields) -> dict:
    return {"module": "ConvNet", "layers": list(layers), "classes": 3} | fields


def layer(name: str, **fields) -> dict:
    return {"module": name} | fields


@pytest.mark.parametrize(
    "changes",
    [
        *({"preprocessing": {"size": size, "layout": "letterbox on white, RGB, uint8"}}
          for size in (0, -1, 10**9, 10**30, 1.5, "16", True)),
        {"temperature": 1e-300},
        {"temperature": 10**400},
        {"classes": "abc"},
        {"classes": ["a", "a", "b"]},
        {"classes": ["a", "b", "\ud800"]},
        {"classes": ["a", "b", "\x1b[2J"]},
        {"classes": [["a"], "b", "c"]},
        {"versions": [["a", "b"]]},
    ],
    ids=lambda changes: repr(changes)[:60],
)  # fmt: skip
def test_absurd_cards_are_refused_before_memory_is_taken(changes, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    assert not refused_or_loaded(Bundle.load, edited(folder, **changes))


@pytest.mark.parametrize(
    "model",
    [
        *(network(layer("Conv", features=n)) for n in (10**9, 10**12, -1, 10**400)),
        network(layer("Conv", features=4, kernel=10**9)),
        network(layer("Conv", features=4, strides=0)),
        network(layer("Pool", window=0)),
        network(layer("Pool", window=10**6)),
        network(*[layer("Pool", window=1)] * 100_000),
        network(*[layer("Residual", kernel=1001)] * 600),
        network(classes=10**12),
        layer("ResNet", depth=10**9),
        layer("Unit"),
        {"module": ["Conv"]},
    ],
    ids=lambda model: repr(model)[:60],
)  # fmt: skip
def test_absurd_descriptions_are_refused_before_memory_is_taken(model, tmp_path):
    folder = Path(shutil.copytree(OLDER, tmp_path / "bundle"))
    assert not refused_or_loaded(Bundle.load, edited(folder, model=model))


@pytest.mark.parametrize(
    "changes",
    [
        *({"head": head} for head in ("", "params", "../head", "x" * 10**5, "\x1b[2J", 3, [])),
        *({"sha256": value} for value in (None, [], "", {}, {"network.stablehlo": None})),
    ],
    ids=lambda changes: repr(changes)[:60],
)  # fmt: skip
def test_absurd_fields_of_programs_are_refused(changes, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    assert not refused_or_loaded(Bundle.load, edited(folder, **changes))


@pytest.mark.parametrize("field", ["head", "network", "sha256"])
def test_a_card_without_a_field_is_refused(field, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    card = json.loads((folder / "bundle.json").read_text())
    del card[field]
    (folder / "bundle.json").write_text(json.dumps(card))
    assert not refused_or_loaded(Bundle.load, folder)


def test_maps_that_the_card_does_not_name_are_not_read(sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    assert Bundle.load(folder).maps
    card = json.loads((folder / "bundle.json").read_text())
    hashes = {name: value for name, value in card["sha256"].items() if name != "maps.stablehlo"}
    assert Bundle.load(edited(folder, sha256=hashes)).maps is None
    assert not refused_or_loaded(Bundle.load, edited(folder, sha256=hashes | {"maps.stablehlo": 1}))


FILES = ["bundle.json", "weights.safetensors", "pictures.safetensors", "network.stablehlo"]


@pytest.mark.parametrize("name", [*FILES, "maps.stablehlo"])
@pytest.mark.parametrize("what", ["pipe", "folder", "sparse", "device"])
def test_what_is_no_file_is_not_read(name, what, sound, tmp_path):
    folder = Path(shutil.copytree(sound, tmp_path / "bundle"))
    path = folder / name
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    assert not refused_or_loaded(Bundle.load, folder)


@pytest.mark.parametrize("what", ["pipe", "sparse", "device", "header"])
def test_weights_that_are_no_file(what, tmp_path):
    path = tmp_path / "weights.safetensors"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.write(struct.pack("<Q", 90_000_000) + b"{")
            file.truncate(2**40 if what == "sparse" else 100_000_000)
    assert not refused_or_loaded(load_backbone, path)


def test_a_network_that_gives_no_numbers_is_named(sound, tmp_path):
    """Finite weights can overflow on the way; nobody is told a probability that is none."""
    bundle = Bundle.load(sound)
    with pytest.raises(CheckpointError, match="not finite"):
        bundle.probs(np.array([[0.0, np.inf, 1.0]], np.float32))
