"""A frozen graph of davidsandberg/facenet as the tensors of facenet-pytorch's InceptionResnetV1.

Both spellings are read: with batch norms (``…/BatchNorm/beta``, ``moving_mean``, ``moving_variance``), as facenet's
freeze_graph.py writes and as its models were published, and with batch norms folded into the convolutions
(``…/Conv2D_bn_offset``), as TensorFlow's graph transforms leave them. The tensors of the former are those of
facenet-pytorch's own conversion, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from udfs.folding import EPSILON, idle_norm
from udfs.graphdef import Graph, GraphError
from udfs.nets import StateDict, check_state_dict, empty_net

_ROOT: Final = "InceptionResnetV1"
_STEM: Final = {
    "conv2d_1a": "Conv2d_1a_3x3", "conv2d_2a": "Conv2d_2a_3x3", "conv2d_2b": "Conv2d_2b_3x3",
    "conv2d_3b": "Conv2d_3b_1x1", "conv2d_4a": "Conv2d_4a_3x3", "conv2d_4b": "Conv2d_4b_3x3",
}  # fmt: skip
# Layers within a block, there and here.
_BLOCK35: Final = {
    "branch0": "Branch_0/Conv2d_1x1",
    "branch1.0": "Branch_1/Conv2d_0a_1x1", "branch1.1": "Branch_1/Conv2d_0b_3x3",
    "branch2.0": "Branch_2/Conv2d_0a_1x1", "branch2.1": "Branch_2/Conv2d_0b_3x3", "branch2.2": "Branch_2/Conv2d_0c_3x3",
}  # fmt: skip
_BLOCK17: Final = {
    "branch0": "Branch_0/Conv2d_1x1",
    "branch1.0": "Branch_1/Conv2d_0a_1x1", "branch1.1": "Branch_1/Conv2d_0b_1x7", "branch1.2": "Branch_1/Conv2d_0c_7x1",
}  # fmt: skip
_BLOCK8: Final = {
    "branch0": "Branch_0/Conv2d_1x1",
    "branch1.0": "Branch_1/Conv2d_0a_1x1", "branch1.1": "Branch_1/Conv2d_0b_1x3", "branch1.2": "Branch_1/Conv2d_0c_3x1",
}  # fmt: skip
_MIXED_6A: Final = {
    "branch0": "Branch_0/Conv2d_1a_3x3",
    "branch1.0": "Branch_1/Conv2d_0a_1x1", "branch1.1": "Branch_1/Conv2d_0b_3x3", "branch1.2": "Branch_1/Conv2d_1a_3x3",
}  # fmt: skip
_MIXED_7A: Final = {
    "branch0.0": "Branch_0/Conv2d_0a_1x1", "branch0.1": "Branch_0/Conv2d_1a_3x3",
    "branch1.0": "Branch_1/Conv2d_0a_1x1", "branch1.1": "Branch_1/Conv2d_1a_3x3",
    "branch2.0": "Branch_2/Conv2d_0a_1x1", "branch2.1": "Branch_2/Conv2d_0b_3x3", "branch2.2": "Branch_2/Conv2d_1a_3x3",
}  # fmt: skip


def facenet_state_dict(graph: Graph) -> StateDict:
    """The embedding network's tensors out of a frozen graph of facenet, 512 dimensions.

    Raises `GraphError` (the first node that is missing or of another shape, by name) or ``ModelFileError``.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_net("resnet").state_dict().items()}
    _check_dimensions(graph, shapes["last_linear.weight"][0])
    _check_epsilons(graph)
    state: StateDict = {}
    for layer, scope in _layers():
        state |= _convolution(graph, layer, f"{_ROOT}/{scope}", shapes)
    for block, scope, scale in _residuals():
        _check_scale(graph, f"{_ROOT}/{scope}/mul/x", scale, needed=scale != 1.0)
        state[f"{block}.conv2d.weight"] = _kernel(
            graph, f"{_ROOT}/{scope}/Conv2d_1x1", shapes[f"{block}.conv2d.weight"]
        )
        state[f"{block}.conv2d.bias"] = _vector(
            graph, f"{_ROOT}/{scope}/Conv2d_1x1/biases", shapes[f"{block}.conv2d.bias"]
        )
    out, features = shapes["last_linear.weight"]
    linear = graph.floats(f"{_ROOT}/Bottleneck/weights", (features, out))
    state["last_linear.weight"] = torch.from_numpy(np.ascontiguousarray(linear.T))
    state |= _norm(graph, "last_bn", f"{_ROOT}/Bottleneck/BatchNorm", (out,))
    return check_state_dict("resnet", state)


def _blocks() -> Iterator[tuple[str, str, dict[str, str]]]:
    """The blocks in the order of the network: name here, name there, their layers."""
    for number in range(5):
        yield f"repeat_1.{number}", f"Repeat/block35_{number + 1}", _BLOCK35
    yield "mixed_6a", "Mixed_6a", _MIXED_6A
    for number in range(10):
        yield f"repeat_2.{number}", f"Repeat_1/block17_{number + 1}", _BLOCK17
    yield "mixed_7a", "Mixed_7a", _MIXED_7A
    for number in range(5):
        yield f"repeat_3.{number}", f"Repeat_2/block8_{number + 1}", _BLOCK8
    yield "block8", "Block8", _BLOCK8


def _layers() -> Iterator[tuple[str, str]]:
    """The convolutions that a batch norm follows, in the order of the network."""
    yield from _STEM.items()
    for block, scope, layers in _blocks():
        yield from ((f"{block}.{layer}", f"{scope}/{inner}") for layer, inner in layers.items())


def _residuals() -> Iterator[tuple[str, str, float]]:
    """The residual blocks, and what their branches are multiplied by before they are added."""
    scales = {"repeat_1": 0.17, "repeat_2": 0.10, "repeat_3": 0.20, "block8": 1.0}
    for block, scope, _ in _blocks():
        if (scale := scales.get(block.split(".")[0])) is not None:
            yield block, scope, scale


def _convolution(graph: Graph, layer: str, scope: str, shapes: dict[str, tuple[int, ...]]) -> StateDict:
    kernel = {f"{layer}.conv.weight": _kernel(graph, scope, shapes[f"{layer}.conv.weight"])}
    shape, offset = shapes[f"{layer}.bn.bias"], f"{scope}/Conv2D_bn_offset"
    # The offset stands for the whole norm: a graph with both was folded by somebody who left the old constants in.
    if offset in graph:
        return kernel | idle_norm(f"{layer}.bn", _vector(graph, offset, shape))
    return kernel | _norm(graph, f"{layer}.bn", f"{scope}/BatchNorm", shape)


def _norm(graph: Graph, name: str, scope: str, shape: tuple[int, ...]) -> StateDict:
    beta, mean = _vector(graph, f"{scope}/beta", shape), _vector(graph, f"{scope}/moving_mean", shape)
    variance = _vector(graph, f"{scope}/moving_variance", shape)
    if float(variance.min()) < 0:
        raise GraphError(f"node '{scope}/moving_variance' holds negative variances")
    return {
        f"{name}.weight": _gamma(graph, scope, shape),
        f"{name}.bias": beta,
        f"{name}.running_mean": mean,
        f"{name}.running_var": variance,
        f"{name}.num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def _gamma(graph: Graph, scope: str, shape: tuple[int, ...]) -> Tensor:
    """A norm's scale. facenet trains without one: TensorFlow then puts a constant of ones, "Const", or nothing."""
    if f"{scope}/gamma" in graph:
        return _vector(graph, f"{scope}/gamma", shape)
    if f"{scope}/Const" in graph and graph.shape(f"{scope}/Const") == shape:
        return _vector(graph, f"{scope}/Const", shape)
    return torch.ones(shape)


def _kernel(graph: Graph, scope: str, shape: tuple[int, ...]) -> Tensor:
    """A convolution's weights: height, width, in, out there; out, in, height, width here."""
    out, into, height, width = shape
    values = graph.floats(f"{scope}/weights", (height, width, into, out))
    return torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 0, 1)))


def _vector(graph: Graph, name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(graph.floats(name, shape))


def _check_dimensions(graph: Graph, needed: int) -> None:
    name = f"{_ROOT}/Bottleneck/weights"
    shape = graph.shape(name) if name in graph else ()
    if len(shape) == 2 and shape[1] != needed:
        raise GraphError(
            f"embeds faces in {shape[1]} dimensions (node {name!r}), {needed} are needed: "
            "facenet's models since 20180402 have them, those of 2017 have 128"
        )


def _check_epsilons(graph: Graph) -> None:
    """A batch norm of another epsilon is another network."""
    for name, node in graph.nodes.items():
        if node.epsilon is not None and name.startswith(f"{_ROOT}/") and np.float32(node.epsilon) != EPSILON:
            raise GraphError(f"node {name!r} has the epsilon {node.epsilon:.6g}, {EPSILON:.6g} is needed")
    for layer in (f"{_ROOT}/{scope}" for _, scope in _layers()):
        _check_scale(graph, f"{layer}/BatchNorm/batchnorm/add/y", float(EPSILON), needed=False)


def _check_scale(graph: Graph, name: str, value: float, *, needed: bool) -> None:
    """One number of the graph that is written into the network here."""
    if needed or name in graph:
        found = graph.floats(name, ())
        if found != np.float32(value):
            raise GraphError(f"node {name!r} is {float(found):.6g}, {value:g} is needed: another network")
