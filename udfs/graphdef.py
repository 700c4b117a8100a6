"""The constants of a frozen TensorFlow graph, read without TensorFlow.

A graph is a protobuf message (``GraphDef``). Its bytes are walked here and not by google.protobuf, which makes an
object of every message before anybody can look: 32 MiB of empty nodes become 1 GiB. Here a file from anywhere is held
to a budget while it is read. Nothing recurses: each level knows the few fields it needs and steps over the others by
their length. Tensors are decoded when they are asked for, by name and in the shape that is expected.

Fields are those of tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto, tensor.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from udfs.arrays import Float32

MAX_GRAPH_BYTES: Final = 512 * 1024**2  # facenet's have 94 MB
_MAX_FIELDS: Final = 500_000  # seconds; facenet's folded graph has 9,000, the published ones some times that
_MAX_NAME: Final = 1000
_MAX_RANK: Final = 8

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_DT_FLOAT: Final = 1


class GraphError(ValueError):
    """A file that is no frozen graph, or not the one that is needed; the text says what is wrong with it."""


@dataclass(frozen=True)
class Node:
    """What is kept of a node: its operation, the bytes of its constant, and a batch norm's epsilon."""

    op: str
    tensor: memoryview | None
    epsilon: float | None


class Graph:
    """The nodes of a graph by name; constants are decoded on demand."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the constant ``name``. Raises `GraphError`."""
        return self._tensor(name).shape

    def floats(self, name: str, shape: tuple[int, ...]) -> Float32:
        """The constant ``name``, which must be of this shape, of 32-bit floats, and finite. Raises `GraphError`."""
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise GraphError(f"node {name!r} has the shape {_shown(tensor.shape)}, {_shown(shape)} is needed")
        if tensor.kind != _DT_FLOAT:
            raise GraphError(
                f"node {name!r} holds numbers of TensorFlow's type {tensor.kind}; 32-bit floats are needed"
            )
        # No more is allocated than for the shape that the caller asked for.
        values = _decoded(name, tensor, math.prod(shape))
        if not bool(np.isfinite(values).all()):
            raise GraphError(f"node {name!r} holds numbers that are not finite")
        return values.reshape(shape)

    def _tensor(self, name: str) -> _Tensor:
        node = self.nodes.get(name)
        if node is None:
            raise GraphError(f"the graph has no node {name!r}")
        if node.op != "Const" or node.tensor is None:
            raise GraphError(f"node {name!r} is a {node.op[:40]!r} and no constant; freeze the graph first")
        return _read_tensor(name, node.tensor)


class _Tensor(NamedTuple):
    kind: int
    shape: tuple[int, ...]
    content: memoryview | None
    floats: list[memoryview]


class _Field(NamedTuple):
    number: int
    kind: int
    value: int | memoryview

    def message(self, what: str) -> memoryview:
        if not isinstance(self.value, memoryview) or self.kind != _LENGTH:
            raise GraphError(f"{what}: field {self.number} is of another kind")
        return self.value

    def integer(self, what: str) -> int:
        if not isinstance(self.value, int):
            raise GraphError(f"{what}: field {self.number} is of another kind")
        return self.value

    def fixed32(self, what: str) -> memoryview:
        if not isinstance(self.value, memoryview) or self.kind != _FIXED32:
            raise GraphError(f"{what}: field {self.number} is of another kind")
        return self.value


class _Budget:
    """How many more fields may be read of a file."""

    def __init__(self) -> None:
        self.left = _MAX_FIELDS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise GraphError("has more fields than any graph of this kind")


def read_graph(data: bytes) -> Graph:
    """The nodes of a serialized ``GraphDef``. Raises `GraphError`."""
    if len(data) > MAX_GRAPH_BYTES:
        raise GraphError(f"has {len(data)} bytes; at most {MAX_GRAPH_BYTES} are read")
    budget, nodes = _Budget(), dict[str, Node]()
    for field in _fields(memoryview(data), budget):
        if field.number != 1:
            continue  # versions, and a library of functions, which a frozen graph of constants has no use for
        name, node = _read_node(field.message("the graph"), budget)
        if name in nodes:
            raise GraphError(f"has two nodes {name!r}")
        nodes[name] = node
    if not nodes:
        raise GraphError("has no nodes: not a TensorFlow graph")
    return Graph(nodes)


def _read_node(view: memoryview, budget: _Budget) -> tuple[str, Node]:
    name = op = ""
    tensor, epsilon = None, None
    for field in _fields(view, budget):
        if field.number == 1:
            name = _text(field.message("a node"))
        elif field.number == 2:
            op = _text(field.message("a node"))
        elif field.number == 5:
            key, value = _entry(field.message("a node"), budget)
            if key == "value":
                tensor = _attribute(value, 8, budget)
            elif key == "epsilon":
                number = _attribute(value, 4, budget)
                epsilon = None if number is None else struct.unpack("<f", number)[0]
    if not name:
        raise GraphError("has a node without a name: not a TensorFlow graph")
    return name, Node(op, tensor, epsilon)


def _entry(view: memoryview, budget: _Budget) -> tuple[str, memoryview]:
    """One attribute of a node: a map's entry of key and value."""
    key, value = "", memoryview(b"")
    for field in _fields(view, budget):
        if field.number == 1:
            key = _text(field.message("an attribute"))
        elif field.number == 2:
            value = field.message("an attribute")
    return key, value


def _attribute(view: memoryview, number: int, budget: _Budget) -> memoryview | None:
    """The bytes of one kind of an attribute's value: 8 is a tensor, 4 a float. None where it is of another kind."""
    found = None
    for field in _fields(view, budget):
        if field.number == number:
            found = field.message("an attribute") if number == 8 else field.fixed32("an attribute")
    return found


def _read_tensor(name: str, view: memoryview) -> _Tensor:
    what, budget = f"node {name!r}", _Budget()
    kind, content, floats = 0, None, list[memoryview]()
    shape: tuple[int, ...] = ()
    for field in _fields(view, budget):
        if field.number == 1:
            kind = field.integer(what)
        elif field.number == 2:
            shape = _read_shape(what, field.message(what), budget)
        elif field.number == 4:
            content = field.message(what)
        elif field.number == 5:  # packed, or one at a time
            floats.append(field.fixed32(what) if field.kind == _FIXED32 else field.message(what))
    return _Tensor(kind, shape, content, floats)


def _read_shape(what: str, view: memoryview, budget: _Budget) -> tuple[int, ...]:
    sizes = []
    for field in _fields(view, budget):
        if field.number != 2:
            continue
        size = 0
        for part in _fields(field.message(what), budget):
            if part.number == 1:
                size = part.integer(what)
        sizes.append(size)
        if len(sizes) > _MAX_RANK:
            raise GraphError(f"{what} has more than {_MAX_RANK} dimensions")
    return tuple(sizes)


def _decoded(name: str, tensor: _Tensor, count: int) -> Float32:
    """``count`` numbers. TensorFlow writes them as bytes, or as a list whose last number stands for all that follow."""
    raw = b"".join(tensor.floats) if tensor.content is None else bytes(tensor.content)
    whole = tensor.content is None or (len(raw) == 4 * count and not tensor.floats)
    if not whole or not raw or len(raw) % 4 or len(raw) > 4 * count:
        raise GraphError(f"node {name!r} does not hold the {count} numbers of its shape")
    values = np.frombuffer(raw, "<f4").astype(np.float32)
    return np.concatenate([values, np.full(count - len(values), values[-1], np.float32)])


def _fields(view: memoryview, budget: _Budget) -> Iterator[_Field]:
    """The fields of one message, one after the other. Raises `GraphError` where its bytes are none."""
    position, end = 0, len(view)
    while position < end:
        budget.spend()
        key, position = _varint(view, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise GraphError("is no protobuf: a field without a number")
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield _Field(number, kind, value)
            continue
        if kind == _LENGTH:
            size, position = _varint(view, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise GraphError(f"is no protobuf of TensorFlow: a field of kind {kind}")
        if size > end - position:
            raise GraphError("ends within a field: cut off, or no TensorFlow graph")
        yield _Field(number, kind, view[position : position + size])
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise GraphError("ends within a field: cut off, or no TensorFlow graph")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise GraphError("is no protobuf: a number of more than ten bytes")


def _text(view: memoryview) -> str:
    if len(view) > _MAX_NAME:
        raise GraphError(f"has a name of {len(view)} bytes: not a TensorFlow graph")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise GraphError("has a name that is no text: not a TensorFlow graph") from None


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of one number"
