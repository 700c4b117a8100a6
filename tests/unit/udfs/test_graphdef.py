"""TensorFlow graphs from anywhere: read, or refused with a reason, in bounded memory and time."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.udfs.graphs import attribute, const, message, node, norm, tensor, varint
from udfs import graphdef
from udfs.graphdef import Graph, GraphError, read_graph

pytestmark = pytest.mark.unit

GRID = np.arange(6, dtype="<f4").reshape(2, 3)
GOOD = const("a/weights", GRID) + norm("a/norm", 0.001) + const("b", np.array(0.17, "<f4"), packed=True)
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def refused(data: bytes, why: str) -> None:
    with pytest.raises(GraphError, match=why):
        everything(read_graph(data))


def everything(graph: Graph) -> None:
    for name in graph.nodes:
        graph.floats(name, graph.shape(name))


def test_constants_by_name_whichever_way_they_are_written() -> None:
    unpacked = (
        b"\x08\x01" + message(2, message(2, b"\x08\x02")) + b"".join(b"\x2d" + GRID[0, i].tobytes() for i in (1, 2))
    )
    graph = read_graph(
        GOOD + const("packed", GRID, packed=True) + message(4, b"\x08\x16")
        + node("unpacked", "Const", attribute("value", message(8, unpacked)))
        + node("filled", "Const", attribute("value", message(8, tensor(GRID[0, 1:2], shape=[2, 2], packed=True))))
    )  # fmt: skip
    assert graph.shape("a/weights") == (2, 3)
    for name in ("a/weights", "packed"):
        assert np.array_equal(graph.floats(name, (2, 3)), GRID)
    assert graph.floats("b", ()) == np.float32(0.17)
    assert list(graph.floats("unpacked", (2,))) == [1, 2]
    assert np.array_equal(graph.floats("filled", (2, 2)), np.ones((2, 2)))
    assert graph.nodes["a/norm"].epsilon == pytest.approx(0.001)
    assert "c" not in graph


def value(*args: NDArray[np.generic], **options: Any) -> bytes:
    return node("w", "Const", attribute("value", message(8, tensor(*args, **options))))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (node("w", "VariableV2"), "'w' is a 'VariableV2' and no constant; freeze"),
        (node("w", "Const"), "no constant"),
        (value(GRID, kind=2), "'w' holds numbers of TensorFlow's type 2"),
        (value(GRID, shape=[3, 3]), "does not hold the 9 numbers"),
        (value(GRID[:0], shape=[2]), "does not hold the 2 numbers"),
        (value(GRID, shape=[2]), "does not hold the 2 numbers"),
        (value(GRID, shape=[2], packed=True), "does not hold the 2 numbers"),
        (value(GRID, shape=[1] * 9), "more than 8 dimensions"),
        (value(np.array([1, np.nan], "<f4")), "'w' holds numbers that are not finite"),
        (value(np.array([-np.inf], "<f4")), "'w' holds numbers that are not finite"),
    ],
)
def test_a_constant_that_is_not_what_is_needed_is_named(data: bytes, why: str) -> None:
    refused(data, why)


def test_a_name_or_a_shape_that_is_not_there() -> None:
    graph = read_graph(GOOD)
    with pytest.raises(GraphError, match="the graph has no node 'c'"):
        graph.floats("c", ())
    with pytest.raises(GraphError, match="the shape 2 x 3, 3 x 2 is needed"):
        graph.floats("a/weights", (3, 2))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no nodes"),
        (b"<html>Please log in</html>", "field"),
        (b"PK\x03\x04", "field"),
        (message(4, b"\x08\x16"), "no nodes"),
        (b"\x0a" + varint(2**63), "ends within a field"),
        (b"\x0a" + varint(5) + b"abcd", "ends within a field"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x0a\x80", "ends within a field"),
        (b"\x02\x00", "without a number"),
        (b"\x0b\x0c", "a field of kind 3"),
        (b"\x08\x01", "field 1 is of another kind"),
        (message(1, b"\x08\x01"), "field 1 is of another kind"),
        (message(1, b""), "without a name"),
        (message(1, message(1, b"\xff")), "no text"),
        (message(1, message(1, b"n" * 1001)), "a name of 1001 bytes"),
        (GOOD + const("b", GRID), "two nodes 'b'"),
    ],
)
def test_bytes_that_are_no_graph(data: bytes, why: str) -> None:
    refused(data, why)


def test_hostile_files_take_neither_memory_nor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphdef, "_MAX_FIELDS", 5_000)
    empty = bytes([0x0A, 0x00]) * 2**23
    attributes = node("a", "", *[attribute("", b"")] * 6_000)
    nodes = b"".join(node(str(number), "") for number in range(6_000))
    floats = node("w", "Const", attribute("value", message(8, message(5, b"") * 6_000)))
    huge = node("w", "Const", attribute("value", message(8, tensor(GRID[:1, :1], shape=[2**40, 2**40], packed=True))))
    tracemalloc.start()
    try:
        refused(empty, "without a name")
        for data in (attributes, nodes, floats):
            refused(data, "more fields than any graph")
        with pytest.raises(GraphError, match="the shape 1099511627776 x 1099511627776, 2 is needed"):
            read_graph(huge).floats("w", (2,))
        # Beside the bytes that were given.
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(graphdef, "MAX_GRAPH_BYTES", 10)
    refused(GOOD, "at most 10 are read")


def test_depth_is_stepped_over() -> None:
    deep = b""
    for _ in range(2_000):
        deep = message(2, deep)
    assert list(read_graph(message(1, message(1, b"a") + message(9, deep))).nodes) == ["a"]
    assert list(read_graph(node("a", "", attribute("list", deep))).nodes) == ["a"]


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(GraphError):
        everything(read_graph(data))


@FUZZ
@given(st.data())
def test_a_graph_with_any_few_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 6)))
        changed[start:end] = data.draw(st.binary(max_size=6))
    with contextlib.suppress(GraphError):
        everything(read_graph(bytes(changed)))


def test_a_graph_that_is_cut_off_anywhere() -> None:
    for length in range(len(GOOD)):
        with contextlib.suppress(GraphError):
            everything(read_graph(GOOD[:length]))
