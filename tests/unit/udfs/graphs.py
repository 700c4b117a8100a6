"""TensorFlow graphs for tests, written byte by byte: nothing here shares code with what reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from udfs.facenet_graph import _layers, _residuals

Nodes = dict[str, bytes]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def tensor(
    values: NDArray[np.generic], *, shape: Iterable[int] | None = None, packed: bool = False, kind: int = 1
) -> bytes:
    dims = b"".join(message(2, b"\x08" + varint(size)) for size in (values.shape if shape is None else shape))
    return b"\x08" + varint(kind) + message(2, dims) + message(5 if packed else 4, values.tobytes())


def attribute(key: str, value: bytes) -> bytes:
    return message(5, message(1, key.encode()) + message(2, value))


def node(name: str, op: str, *attributes: bytes) -> bytes:
    return message(1, message(1, name.encode()) + message(2, op.encode()) + b"".join(attributes))


def const(name: str, values: NDArray[np.generic], *, packed: bool = False) -> bytes:
    return node(
        name, "Const", attribute("dtype", b"\x30\x01"), attribute("value", message(8, tensor(values, packed=packed)))
    )


def norm(name: str, epsilon: float) -> bytes:
    return node(name, "FusedBatchNorm", attribute("epsilon", b"\x25" + struct.pack("<f", epsilon)))


def facenet(state: Mapping[str, Tensor], *, folded: bool) -> Nodes:
    """The nodes of facenet's frozen graph with these tensors, as they are published or with folded batch norms."""
    made: dict[str, NDArray[np.generic]] = {}
    others: Nodes = {}
    for layer, scope in [*_layers(), ("last_bn", "Bottleneck")]:
        name = f"InceptionResnetV1/{scope}"
        bn = layer if layer == "last_bn" else f"{layer}.bn"
        if layer != "last_bn":
            made[f"{name}/weights"] = state[f"{layer}.conv.weight"].numpy().transpose(2, 3, 1, 0)
        if folded and layer != "last_bn":
            made[f"{name}/Conv2D_bn_offset"] = state[f"{bn}.bias"].numpy()
            continue
        made[f"{name}/BatchNorm/beta"] = state[f"{bn}.bias"].numpy()
        made[f"{name}/BatchNorm/moving_mean"] = state[f"{bn}.running_mean"].numpy()
        made[f"{name}/BatchNorm/moving_variance"] = state[f"{bn}.running_var"].numpy()
        epsilon = f"{name}/BatchNorm/cond/FusedBatchNorm_1"
        others[epsilon] = norm(epsilon, 0.001)
    for block, scope, scale in _residuals():
        name = f"InceptionResnetV1/{scope}"
        made[f"{name}/Conv2d_1x1/weights"] = state[f"{block}.conv2d.weight"].numpy().transpose(2, 3, 1, 0)
        made[f"{name}/Conv2d_1x1/biases"] = state[f"{block}.conv2d.bias"].numpy()
        made[f"{name}/mul/x"] = np.array(scale, "<f4")
    made["InceptionResnetV1/Bottleneck/weights"] = state["last_linear.weight"].numpy().T
    return {name: const(name, values) for name, values in made.items()} | others


def written(nodes: Nodes) -> bytes:
    # Versions come last, as TensorFlow writes them.
    return b"".join(nodes.values()) + message(4, b"\x08\x16")
