"""Programs of strangers: read, or refused, without more memory or time than their size explains.

The bytecode is read by MLIR, in C++, which random bytes can crash: those programs are read in
processes of their own, and the crashes are counted (SECURITY.md has the figures).
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import flatbuffers
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from limits import limited
from small_bundle import make_bundle

from jaxgear.errors import CheckpointError
from jaxgear.models.convnet import Conv, ConvNet, Dense, Dropout, GlobalPool, Pool, Residual
from jaxgear.program.stablehlo import LIMIT, PLATFORMS, Program, deserialize

LAYERS = [Conv(4), Pool(), Residual(), Dropout(0.1), GlobalPool(), Dense(5)]
WEIGHTS = {"params/head/kernel": jax.ShapeDtypeStruct((768, 3), jnp.float32)}
IMAGES = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.uint8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "bundle"
    make_bundle(ConvNet(LAYERS, classes=3)).save(folder)
    return folder


def outcomes(bundle: Path, where: str, count: int) -> tuple[dict, list]:
    """How many damaged programs were read and refused, and how others ended."""
    script = Path(__file__).with_name("hostile_programs.py")
    command = [sys.executable, script, bundle, where, "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    found = json.loads(done.stdout)
    odd = found.pop("odd")
    assert sum(found.values()) + len(odd) == count
    return found, odd


@pytest.mark.parametrize("count", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_damaged_headers(count, sound):
    """Nothing around the bytecode crashes, hangs or takes memory."""
    found, odd = outcomes(sound, "header", count)
    assert not odd
    assert min(found["read"], found["refused"]) > count / 50, found


@pytest.mark.parametrize("count", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_damaged_bytecode(count, sound):
    """MLIR crashes now and then. No other error comes out, and it does not get worse unseen."""
    found, odd = outcomes(sound, "bytecode", count)
    only_of_mlir(odd, count)
    assert min(found["read"], found["refused"]) > count / 50, found


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_programs_that_are_run(count, sound):
    """Whole bundles, signed: what is read of them gives logits, and maps of one image."""
    found, odd = outcomes(sound, "use", count)
    only_of_mlir(odd, count)
    assert min(found["read"], found["refused"]) > count / 50, found


def only_of_mlir(odd: list, count: int) -> None:
    """One in a hundred may crash, hang or take memory; none raises an error of another kind."""
    assert len(odd) <= max(1, count / 100), odd
    assert not [how for _, how in odd if "Traceback" in how and "MemoryError" not in how]


def exported(run, *shapes, platforms=PLATFORMS, **options):
    return jax.export.export(jax.jit(run), platforms=platforms, **options)(*shapes)


def logits(weights, images):
    flat = images.reshape(images.shape[0], -1).astype(jnp.float32)
    return {"logits": flat @ weights["params/head/kernel"]}


def refused(data: bytes, head: str | None = None) -> str:
    """Why a program is refused, quickly and in little memory."""
    with limited(), pytest.raises(CheckpointError) as error:
        Program.deserialize(bytes(data), head)
    message = str(error.value)
    assert len(message) < 500
    assert len(message.splitlines()) == 1
    return message


def test_a_sound_program_is_read():
    """What the crafted ones differ from."""
    assert (
        Program.deserialize(bytes(exported(logits, WEIGHTS, IMAGES).serialize()), None).batch == 4
    )


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda w, x: logits(w, x)["logits"], "logits"),
        (lambda w, x: {"logits": logits(w, x)["logits"].astype(jnp.float16)}, "logits"),
        (lambda w, x: {"logits": logits(w, x)["logits"][0]}, "logits"),
        (lambda w, x: logits(w, x) | {"more": w}, "logits"),
        (lambda w, x: {}, "logits"),
        (lambda w, x: {"logits": jnp.linalg.qr(logits(w, x)["logits"])[0]}, "calls"),
    ],
    ids=["bare", "half", "vector", "more", "nothing", "call"],
)
def test_other_results_are_refused(run, reason):
    data = exported(run, WEIGHTS, IMAGES, disabled_checks=[]).serialize()
    assert reason in refused(data)


@pytest.mark.parametrize(
    "shapes",
    [
        ([WEIGHTS["params/head/kernel"]], IMAGES),
        (WEIGHTS, jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)),
        (WEIGHTS, jax.ShapeDtypeStruct((4, 768), jnp.uint8)),
        (WEIGHTS, IMAGES, IMAGES),
        (WEIGHTS,),
        (),
    ],
    ids=["list", "float images", "flat images", "three", "one", "none"],
)
def test_other_arguments_are_refused(shapes):
    def run(*arguments):
        return {"logits": jnp.zeros((4, 3))}

    assert "does not turn weights and images into logits" in refused(
        exported(run, *shapes).serialize()
    )


def test_programs_of_other_machines_are_refused():
    data = exported(logits, WEIGHTS, IMAGES, platforms=("tpu",)).serialize()
    assert "does not run on all of" in refused(data)
    for change, reason in (
        ({"nr_devices": 2}, "several devices"),
        ({"disabled_safety_checks": (jax.export.DisabledSafetyCheck.platform(),)}, "are off"),
    ):
        whole = dataclasses.replace(exported(logits, WEIGHTS, IMAGES), **change)
        assert reason in refused(whole.serialize())


def test_effects_and_callbacks_are_refused():
    """A callback cannot be written at all: its place in a program is a call by address."""

    def run(weights, images):
        io_callback(print, None, images, ordered=True)
        return logits(weights, images)

    with pytest.raises((NotImplementedError, ValueError)):
        exported(run, WEIGHTS, IMAGES).serialize()


@pytest.mark.parametrize(
    "target", ["evil", "evil x", "shape_assertion x", "(", "\\22", "", "a\\0A"]
)
def test_calls_are_refused_whatever_their_name(target):
    line = f'%0 = stablehlo.custom_call @"{target}"(%a) : (tensor<2xf32>) -> tensor<2xf32>'
    assert "calls" in refused(of_text(line))


def test_waiting_for_others_is_refused():
    line = (
        '%t = stablehlo.create_token : !stablehlo.token\n %0:2 = "stablehlo.infeed"(%t) '
        '{infeed_config=""} : (!stablehlo.token) -> (tensor<2xf32>, !stablehlo.token)'
    )
    assert "stablehlo.infeed" in refused(of_text(line, "%0#0"))


def of_text(line: str, result: str = "%0") -> bytes:
    """A program whose module has this operation."""
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax
    from jax.extend.mlir import ir

    text = (
        "func.func public @main(%a: tensor<2xf32>) -> tensor<2xf32> {"
        f"{line}\n return {result} : tensor<2xf32> }}"
    )
    with mlir.make_ir_context():
        code = mlir.module_to_bytecode(ir.Module.parse(text))
        module = _jax.mlir.serialize_portable_artifact(code, "1.9.0", False)
    base = exported(lambda x: x + 1, jax.ShapeDtypeStruct((2,), jnp.float32))
    return dataclasses.replace(base, mlir_module_serialized=module).serialize()


@pytest.mark.parametrize("size", [b"b^999", b"a+b+c", b"9^9^9", b"((9))", b"-9999", b"b\n\n\nb"])
def test_sizes_of_axes_are_numbers_or_the_batch(size, sound):
    data = (sound / "network.stablehlo").read_bytes()
    damaged = data.replace(b"\5\0\0\0batch\0", len(size).to_bytes(4, "little") + size + b"\0")
    assert damaged != data
    assert "neither a number nor the batch size" in refused(damaged, "params/head")


def header(**fields) -> bytes:
    """A file of `jax.export` with these fields: number of a field -> how it is built."""
    builder = flatbuffers.Builder()
    built = {int(name[1:]): build(builder) for name, build in fields.items()}
    builder.StartObject(30)
    for slot, offset in built.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def vector(builder, offsets) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def table(builder, kind: int, slot: int, offset: int) -> int:
    builder.StartObject(slot + 1)
    builder.PrependInt8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


def doubling(builder) -> int:
    """A tuple of one twice, that is a tuple of one twice: 2**80 leaves."""
    node = table(builder, 0, 1, 0)
    for _ in range(12):
        node = table(builder, 2, 1, vector(builder, [node] * 64))
    return node


def deep(builder) -> int:
    node = table(builder, 0, 1, 0)
    for _ in range(50_000):
        node = table(builder, 2, 1, vector(builder, [node]))
    return node


def shared(builder) -> int:
    """One array of 16 axes, 300,000 times."""
    word = builder.CreateString("9" * 9)
    return vector(builder, [table(builder, 0, 1, vector(builder, [word] * 16))] * 300_000)


def proto(builder) -> int:
    """A sharding in bytes, which C++ would parse."""
    return vector(builder, [table(builder, 0, 1, builder.CreateByteVector(b"\xff" * 100))])


def name(builder) -> int:
    return builder.CreateString("f")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"_2": doubling}, "larger than the file"),
        ({"_2": deep}, "no dictionaries"),
        ({"_19": shared}, "larger than the file"),
        ({"_7": proto}, "shardings"),
        ({"_10": lambda b: vector(b, [name(b)])}, "effects"),
        ({"_17": lambda b: table(b, 0, 1, 0)}, "derivative"),
        ({"_20": lambda b: vector(b, [name(b)])}, "meshes"),
    ],
    ids=["doubling", "deep", "shared", "proto", "effects", "derivative", "meshes"],
)
def test_crafted_headers(fields, reason):
    whole = {"_1": name, "_4": lambda b: table(b, 0, 1, 0)} | fields
    assert reason in refused(header(**whole))


def test_two_open_sizes_are_refused():
    one, other = jax.export.symbolic_shape("a, b")
    images = jax.ShapeDtypeStruct((one, other, 16, 3), jnp.uint8)

    def run(weights, images):
        return {"logits": jnp.zeros((images.shape[0], 3))}

    assert "more than one size is open" in refused(exported(run, WEIGHTS, images).serialize())


@pytest.mark.parametrize("data", [b"", b"\0" * 4, b"\xff" * 1000, b"{}", bytes(LIMIT + 1)])
def test_what_is_no_program_is_refused(data):
    with limited(), pytest.raises(CheckpointError):
        deserialize(data)


def test_large_constants_take_no_more_than_their_size():
    """10**12 numbers that are all the same are one number and a shape."""

    def run(weights, images):
        return {"logits": logits(weights, images)["logits"] + jnp.zeros((10**6, 10**6))[0, 0]}

    data = bytes(exported(run, WEIGHTS, IMAGES).serialize())
    with limited():
        Program.deserialize(data, None)


def test_loops_without_end_are_read_and_not_run():
    """Whether a program ends cannot be known: reading it does not run it."""

    def run(weights, images):
        forever = jax.lax.while_loop(lambda x: x < 1, lambda x: x * 0, np.float32(0))
        return {"logits": logits(weights, images)["logits"] + forever}

    data = bytes(exported(run, WEIGHTS, IMAGES).serialize())
    with limited():
        Program.deserialize(data, None)
