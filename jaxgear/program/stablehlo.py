"""A network as a program, which a bundle stores instead of code.

`jax.export` writes a network as StableHLO for CPU, CUDA and TPU, with its weights as arguments and
for any number of images. Reading it needs neither Flax nor the file that defines the network. It
can only compute: `Program.deserialize` refuses programs that call anything outside.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree, UInt8

from jaxgear.errors import CheckpointError, UsageError, first_line
from jaxgear.program.checks import calls, check_header
from jaxgear.program.variables import Weights, flat, structured
from jaxgear.text import printable

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2**24  # bytes; a ResNet-152 takes 0.5 MB
FIXED_BATCH = 16  # batch of networks that cannot be exported for any number of images


@dataclass(frozen=True)
class Program:
    """A network without its weights: (weights, u8 [B, S, S, 3]) -> logits and features.

    `head` names the dense layer that gives the logits, for example "params/head". It is None, and
    there are no features, if something else gives them.
    """

    exported: jax.export.Exported
    head: str | None

    @classmethod
    def of(cls, model: Any, variables: PyTree, size: int) -> "Program":
        """The program of a Flax network in evaluation, for images of `size` pixels.

        `variables` are arrays or shapes; their values do not matter.

        Raises:
            UsageError: the network cannot be exported; the message has its name and the reason.
        """
        from jaxgear.program.apply import forward, watched

        shapes = jax.eval_shape(lambda: variables)
        apply, restore, heads = forward(model), structured(shapes), []

        def run(weights: Weights, images: Array) -> dict[str, Array]:
            logits, (head, features) = watched(apply, restore(weights), images)
            heads.append(head)
            return {"logits": logits} | ({} if head is None else {"features": features})

        exported = export(run, flat(shapes), size, type(model).__name__)
        return cls(exported, heads[-1])

    def __call__(self, weights: Weights, images: UInt8[ArrayLike, "B S S 3"]) -> dict[str, Array]:
        """`logits`, float32 [B, K], and, with a `head`, its inputs `features`, float32 [B, D]."""
        return self.exported.call(weights, images)

    def logits(self, weights: Weights, images: UInt8[ArrayLike, "B S S 3"]) -> Float[Array, "B K"]:
        """The logits alone."""
        return self(weights, images)["logits"]

    def features(
        self, weights: Weights, images: UInt8[ArrayLike, "B S S 3"]
    ) -> Float[Array, "B D"]:
        """The inputs of the last dense layer; only for a program with a `head`."""
        return self(weights, images)["features"]

    @property
    def shapes(self) -> Weights:
        """Shapes and dtypes of the weights."""
        (weights, _), _ = self.exported.in_tree.unflatten(self.exported.in_avals)
        return weights

    @property
    def images(self) -> Any:
        """Shape and dtype of the images."""
        return self.exported.in_avals[-1]

    @property
    def batch(self) -> int | None:
        """The number of images per call; None: any number."""
        return self.images.shape[0] if isinstance(self.images.shape[0], int) else None

    @property
    def classes(self) -> int:
        """The number of logits."""
        return self.exported.out_tree.unflatten(self.exported.out_avals)["logits"].shape[1]

    def serialize(self) -> bytes:
        """The program as bytes, for `deserialize`."""
        return bytes(self.exported.serialize())

    @classmethod
    def deserialize(cls, data: bytes, head: str | None) -> "Program":
        """The inverse of `serialize`, for untrusted bytes.

        Raises:
            CheckpointError: the bytes are no program, or it calls outside or has another signature.
        """
        program = cls(deserialize(data), head)
        exported = program.exported
        inputs = exported.in_tree.unflatten(exported.in_avals)
        outputs = exported.out_tree.unflatten(exported.out_avals)
        sound = (
            len(inputs[0]) == 2
            and not inputs[1]
            and isinstance(inputs[0][0], dict)
            and _is_images(program.images)
            and isinstance(outputs, dict)
            and outputs.keys() == {"logits"} | ({"features"} if head else set())
            and all(len(x.shape) == 2 and x.dtype == jnp.float32 for x in outputs.values())
        )
        if not sound:
            raise CheckpointError("the program does not turn weights and images into logits")
        if head and not {f"{head}/kernel", f"{head}/bias"} <= program.shapes.keys():
            raise CheckpointError(f"the network has no layer {head[:80]!r}")
        return program


def export(
    run: Callable[..., PyTree], weights: Weights, size: int, name: str, *more: Any
) -> jax.export.Exported:
    """Exports `run(weights, images, *more)` for any number of images.

    If the network needs to know the number, it is `FIXED_BATCH`. A shape in `more` is the shape of
    one image's value.

    Raises:
        UsageError: network `name` cannot be exported; the message has the reason.
    """

    def attempt(batch: Any) -> jax.export.Exported:
        images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
        rest = [jax.ShapeDtypeStruct((batch, *row.shape), row.dtype) for row in more]
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(weights, images, *rest)
        exported.serialize()  # fails for parts that only this process can run, such as callbacks
        return exported

    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # keep this machine's paths out of it
    try:
        try:
            exported = attempt(jax.export.symbolic_shape("batch")[0])
        except (MemoryError, ImportError):
            raise
        except Exception:  # a network can raise anything on an unknown batch size
            exported = attempt(FIXED_BATCH)
        _refuse_calls(exported, UsageError)
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise UsageError(
            f"network {name}: cannot be exported as a program "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    return exported


def deserialize(data: bytes) -> jax.export.Exported:
    """Reads an untrusted program and checks that it runs here and calls nothing outside.

    Raises:
        CheckpointError: it is no program, or it is refused.
    """
    if len(data) > LIMIT:
        raise CheckpointError(f"a program of {len(data):,} bytes, at most {LIMIT:,} are read")
    try:
        content = bytearray(data)
        check_header(content)
        exported = jax.export.deserialize(content)
        _refuse_calls(exported, CheckpointError)
    except (CheckpointError, MemoryError, ImportError):
        raise
    except Exception as error:  # hostile bytes make parsers raise anything
        raise CheckpointError(
            f"this jax ({jax.__version__}) cannot read the program ({first_line(error)}); a "
            "program of a newer jax needs that jax"
        ) from error
    if exported.nr_devices != 1 or exported.ordered_effects or exported.unordered_effects:
        raise CheckpointError("a program for several devices, or with effects")
    if not set(PLATFORMS) <= set(exported.platforms):
        raise CheckpointError(f"a program that does not run on all of {', '.join(PLATFORMS)}")
    return exported


def _refuse_calls(exported: jax.export.Exported, error: type[Exception]) -> None:
    if called := calls(exported):
        names = printable(", ".join(sorted(called))[:200])
        raise error(f"the program calls {names}, which is outside of it")


def _is_images(shape: Any) -> bool:
    return len(shape.shape) == 4 and shape.shape[3] == 3 and shape.dtype == jnp.uint8


@contextlib.contextmanager
def running(what: str) -> Iterator[None]:
    """Turns errors of an untrusted program, whose header may lie, into a CheckpointError."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        # Only one of JAX's RuntimeErrors is the program's fault: a message that is not UTF-8.
        if isinstance(error, RuntimeError) and "nanobind" not in str(error):
            raise
        raise CheckpointError(f"{what} cannot run ({first_line(error)})") from error
