"""A network as a program: what a bundle keeps of it, instead of code.

`jax.export` writes a network as StableHLO for CPU, CUDA and TPU, with its weights as arguments and
any number of images. Whoever reads it needs neither Flax nor the file in which the network was
defined. It can compute and nothing else: `Program.deserialize` refuses calls out of it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree, UInt8

from jaxgear.errors import CheckpointError, UsageError
from jaxgear.program.checks import calls, check_header
from jaxgear.text import printable

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 2**24  # bytes; a ResNet-152 takes 0.5 MB
FIXED_BATCH = 16  # of networks that cannot say what they do with any number of images
Weights = dict[str, Any]  # name (collection/layer/.../leaf) -> array


def flat(variables: PyTree) -> Weights:
    """Variables by name. Random keys become the numbers that they are made of."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    named = {_name(path): _plain(leaf) for path, leaf in leaves}
    if len(named) < len(leaves):
        raise UsageError("two variables of the network have the same name")
    return named


def structured(shapes: PyTree) -> Callable[[Weights], PyTree]:
    """The inverse of `flat`, for variables of these shapes."""
    named, structure = jax.tree_util.tree_flatten_with_path(shapes)

    def restore(weights: Weights) -> PyTree:
        return structure.unflatten([_as(leaf, weights[_name(path)]) for path, leaf in named])

    return restore


@dataclass(frozen=True)
class Program:
    """A network without its weights: (weights, u8 [B, S, S, 3]) -> logits, and what is under them.

    `head` names the dense layer that puts out the logits (as "params/head"), or is None where
    something else does.
    """

    exported: jax.export.Exported
    head: str | None

    @classmethod
    def of(cls, model: Any, variables: PyTree, size: int) -> "Program":
        """The program of a Flax network in evaluation, for images of `size` pixels.

        `variables` are arrays, or their shapes: their values are not looked at.

        Raises:
            UsageError: the network cannot be written as a program; its name and the reason.
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
        """`logits`, float32 [B, K], and, with a `head`, `features`: what it takes, [B, D]."""
        return self.exported.call(weights, images)

    def logits(self, weights: Weights, images: UInt8[ArrayLike, "B S S 3"]) -> Float[Array, "B K"]:
        """The logits alone."""
        return self(weights, images)["logits"]

    def features(
        self, weights: Weights, images: UInt8[ArrayLike, "B S S 3"]
    ) -> Float[Array, "B D"]:
        """What the last dense layer takes. Of a program with a `head`."""
        return self(weights, images)["features"]

    @property
    def shapes(self) -> Weights:
        """The weights that it takes, as shapes and dtypes."""
        (weights, _), _ = self.exported.in_tree.unflatten(self.exported.in_avals)
        return weights

    @property
    def images(self) -> Any:
        """The images that it takes, as shape and dtype."""
        return self.exported.in_avals[-1]

    @property
    def batch(self) -> int | None:
        """How many images it takes at a time; None: any number."""
        return self.images.shape[0] if isinstance(self.images.shape[0], int) else None

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return self.exported.out_tree.unflatten(self.exported.out_avals)["logits"].shape[1]

    def serialize(self) -> bytes:
        """The program as bytes, for `deserialize`."""
        return bytes(self.exported.serialize())

    @classmethod
    def deserialize(cls, data: bytes, head: str | None) -> "Program":
        """The inverse of `serialize`, for bytes of a stranger.

        Raises:
            CheckpointError: no program, one that calls out of itself, or of another form.
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
    """`run(weights, images, *more)` as a program; a shape in `more` is that of one image's value.

    For any number of images, or for `FIXED_BATCH` where the network needs to know how many.

    Raises:
        UsageError: `name` cannot be written as a program, and the reason.
    """

    def attempt(batch: Any) -> jax.export.Exported:
        images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
        rest = [jax.ShapeDtypeStruct((batch, *one.shape), one.dtype) for one in more]
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(weights, images, *rest)
        exported.serialize()  # what can be computed here alone, callbacks say, fails here
        return exported

    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no path of this machine in it
    try:
        try:
            exported = attempt(jax.export.symbolic_shape("batch")[0])
        except (MemoryError, ImportError):
            raise
        except Exception:  # whatever a network makes of a number that is not known
            exported = attempt(FIXED_BATCH)
        _refuse_calls(exported, UsageError)
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise UsageError(
            f"network {name}: cannot be handed on as a program ({type(error).__name__}: {reason})"
        ) from error
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    return exported


def deserialize(data: bytes) -> jax.export.Exported:
    """A program of a stranger that runs on this machine and calls nothing outside.

    Raises:
        CheckpointError: none.
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
        reason = printable(str(error).strip().partition("\n")[0][:200])
        raise CheckpointError(
            f"this jax ({jax.__version__}) reads no program in it ({reason}); one that a newer "
            "jax wrote needs that jax"
        ) from error
    if exported.nr_devices != 1 or exported.ordered_effects or exported.unordered_effects:
        raise CheckpointError("a program for several devices, or with effects")
    if not set(PLATFORMS) <= set(exported.platforms):
        raise CheckpointError(f"a program that does not run on all of {', '.join(PLATFORMS)}")
    return exported


def _refuse_calls(exported: jax.export.Exported, error: type[Exception]) -> None:
    if called := calls(exported):
        names = printable(", ".join(sorted(called))[:200])
        raise error(f"the program calls {names} outside of it")


def _is_images(shape: Any) -> bool:
    return len(shape.shape) == 4 and shape.shape[3] == 3 and shape.dtype == jnp.uint8


@contextlib.contextmanager
def running(what: str) -> Iterator[None]:
    """CheckpointError for a program of a stranger whose header says other than its operations."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        # Of JAX's RuntimeErrors one alone is of the program: a message that is not UTF-8.
        if isinstance(error, RuntimeError) and "nanobind" not in str(error):
            raise
        reason = printable(str(error).strip().partition("\n")[0][:300])
        raise CheckpointError(f"{what} cannot run ({reason})") from error


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A random key as numbers; anything else as it is."""
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return np.asarray(jax.random.key_data(leaf))


def _as(like: Any, value: Any) -> Any:
    """`value` of a weight as the variable `like` that it was."""
    if not _is_key(like):
        return value
    kinds = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(value, impl=kinds[0])
