"""Checks untrusted programs, before and after `jax.export` reads them.

`jax.export.deserialize` trusts its input: shared tables make it take 2**80 steps, symbolic sizes
make it expand polynomials, shardings reach parsers in C++. Networks need none of that.
"""

import re
from typing import Any

import jax.export
from flatbuffers.table import Table

HEADER_LIMIT = 2**21  # bytes around the bytecode; 13,000 variables fit
DEPTH_LIMIT, RANK_LIMIT = 16, 16
SIZE = re.compile(
    rb"[0-9]{1,10}|([0-9]{1,4}\*)?(?P<batch>[A-Za-z]\w{0,31})"
)  # of an axis: 8, batch, 4*batch
# JAX writes this for an open number of images: a check of shapes, not a call.
HARMLESS = {"shape_assertion"}
# Operations that talk to other programs or devices, or wait for them.
OUTSIDE = {
    *("infeed", "outfeed", "send", "recv", "partition_id", "replica_id"),
    *("all_gather", "all_reduce", "all_to_all", "reduce_scatter", "collective_broadcast"),
    "collective_permute",
}
DIALECTS = {"builtin", "func", "stablehlo", "chlo"}
# Fields of jax/_src/export/serialization.fbs: offsets in the table `Exported`.
_NAME, _TREES, _MODULE = 6, (8, 12), 30
_FORBIDDEN = {
    24: "effects",
    26: "effects",
    28: "checks that are off",
    44: "meshes",
    46: "shardings",
}
_VJP = 38
_AVALS, _SHARDINGS, _PLATFORMS = (10, 14, 42), (18, 20), 22
_NUMBERS = (34, 48, 50, 52, 54)
# Offsets in the tables `PyTreeDef` and `AbstractValue`.
_KIND, _CHILDREN, _NAMES, _SHAPE = 4, 6, 8, 6
_LEAF_TO_DICT = 5  # kinds 0 to 4: leaf, none, tuple, list, dict; higher: types of other packages


def check_header(data: bytearray) -> None:
    """Refuses a file that would take `jax.export.deserialize` more time or memory than its size.

    It counts each part as often as a path leads to it; a sound file has one path to each part.

    Raises:
        ValueError: the file is refused, with the reason. Damaged offsets raise other errors.
    """
    _Header(data).check()


class _Header:
    """The flatbuffer around the bytecode, read within a budget of bytes."""

    def __init__(self, data: bytearray):
        self.data = data
        self.left = HEADER_LIMIT  # bytes that may still be read
        self.batch: set[bytes] = set()  # names of open sizes

    def check(self) -> None:
        """Raises ValueError for a header that is too large or has parts that networks lack."""
        root = Table(self.data, 0)
        root = Table(self.data, root.Indirect(0))
        self.left = min(HEADER_LIMIT, len(self.data) - self.length(root, _MODULE))
        for field, name in _FORBIDDEN.items():
            if self.length(root, field):
                raise ValueError(f"it has {name}")
        if root.Offset(_VJP):
            raise ValueError("it has a derivative")
        self.string(root, root.Offset(_NAME) + root.Pos)
        for field in _NUMBERS:
            self.spend(self.length(root, field))
        for at in self.elements(root, _PLATFORMS):
            self.string(root, at)
        for field in _AVALS:
            for at in self.elements(root, field):
                self.aval(Table(self.data, root.Indirect(at)))
        for field in _SHARDINGS:
            for at in self.elements(root, field):
                sharding = Table(self.data, root.Indirect(at))
                if any(sharding.Offset(place) for place in (4, 6, 8)):
                    raise ValueError("it has shardings")
        for field in _TREES:
            self.tree(Table(self.data, root.Indirect(root.Offset(field) + root.Pos)), 0)

    def spend(self, count: int) -> None:
        """Takes `count` bytes from the budget."""
        self.left -= count
        if self.left < 0:
            raise ValueError("its parts are larger than the file, or too large")

    def length(self, table: Table, field: int) -> int:
        """The length of a vector; 0 if the table lacks it."""
        offset = table.Offset(field)
        return table.VectorLen(offset) if offset else 0

    def elements(self, table: Table, field: int) -> range:
        """The positions of the offsets in a vector."""
        if not (count := self.length(table, field)):
            return range(0)
        self.spend(4 * count)
        start = table.Vector(table.Offset(field))
        return range(start, start + 4 * count, 4)

    def string(self, table: Table, at: int) -> bytes:
        text = table.String(at)
        self.spend(len(text))
        return text

    def aval(self, aval: Table) -> None:
        """Checks the shape of an array."""
        places = self.elements(aval, _SHAPE)
        if len(places) > RANK_LIMIT:
            raise ValueError(f"an array of {len(places)} axes")
        for at in places:
            if not (size := SIZE.fullmatch(self.string(aval, at))):
                raise ValueError("the size of an axis is neither a number nor the batch size")
            self.batch.add(size["batch"] or b"")
        if len(self.batch - {b""}) > 1:
            raise ValueError("more than one size is open")

    def tree(self, node: Table, depth: int) -> None:
        """Checks that arguments or results are nested dictionaries, lists and tuples."""
        self.spend(1)
        kind = self.data[node.Pos + node.Offset(_KIND)] if node.Offset(_KIND) else 0
        if depth > DEPTH_LIMIT or kind >= _LEAF_TO_DICT:
            raise ValueError("its arguments are no dictionaries of arrays")
        for at in self.elements(node, _NAMES):
            self.string(node, at)
        for at in self.elements(node, _CHILDREN):
            self.tree(Table(self.data, node.Indirect(at)), depth + 1)


def calls(exported: jax.export.Exported) -> set[str]:
    """The names of calls to the outside in a program.

    A custom call can run any function that is linked into the process. Other operations can wait
    for other processes.
    """
    from jaxlib.mlir import ir  # jax.extend.mlir has the same, but imports Pallas: 17 ms
    from jaxlib.mlir.dialects import chlo, stablehlo

    names = set()

    def visit(operation: Any) -> Any:
        dialect, _, name = operation.name.partition(".")
        if name == "custom_call":
            names.add(ir.StringAttr(operation.attributes["call_target_name"]).value)
        elif dialect not in DIALECTS or name in OUTSIDE:
            names.add(operation.name)
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        stablehlo.register_dialect(context)
        chlo.register_dialect(context)
        exported.mlir_module(serialized=False).operation.walk(visit)
    return names - HARMLESS
