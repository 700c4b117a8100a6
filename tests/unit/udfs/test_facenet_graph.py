"""Frozen graphs of davidsandberg/facenet as weights: what they become, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.golden.support import model, random_weights
from tests.unit.udfs.graphs import Nodes, attribute, const, facenet, message, node, norm, written
from udfs import weights as module
from udfs.facenet_graph import facenet_state_dict
from udfs.fingerprint import model_fingerprint, tensors_sha256
from udfs.folding import fold_batch_norms
from udfs.graphdef import GraphError, read_graph
from udfs.nets import StateDict, build_nets, empty_net, file_sha256, read_model_file
from udfs.params import PipelineParams
from udfs.weights import WeightsError, build_model_file, resolve_weights

pytestmark = pytest.mark.unit

FIRST = "InceptionResnetV1/Conv2d_1a_3x3"


def state() -> StateDict:
    return model().state_dicts["resnet"]


# Names and shapes only: what is made when the tests are collected must be made at once.
STAND_IN = {name: torch.zeros((1,) * tensor.dim()) for name, tensor in empty_net("resnet").state_dict().items()}


@cache
def published() -> Nodes:
    return facenet(state(), folded=False)


@cache
def folded() -> Nodes:
    return facenet(fold_batch_norms(state()), folded=True)


def refused(nodes: Nodes, why: str) -> None:
    with pytest.raises(GraphError, match=why):
        facenet_state_dict(read_graph(written(nodes)))


def test_the_published_graph_becomes_facenet_pytorchs_tensors_bit_for_bit() -> None:
    # All names of the real file are met by tests/golden, with the real weights.
    names = ["Repeat_1/block17_10/Branch_1/Conv2d_0c_7x1/BatchNorm/moving_mean", "Block8/Conv2d_1x1/biases"]
    assert {f"InceptionResnetV1/{name}" for name in [*names, "Bottleneck/weights"]} <= published().keys()
    read = facenet_state_dict(read_graph(written(published())))
    assert tensors_sha256("resnet", read) == tensors_sha256("resnet", state())
    params = PipelineParams()
    assert model_fingerprint({"resnet": read}, params) == model_fingerprint({"resnet": state()}, params)


def test_a_folded_graph_becomes_what_folding_here_gives() -> None:
    read = facenet_state_dict(read_graph(written(folded())))
    assert tensors_sha256("resnet", read) == tensors_sha256("resnet", fold_batch_norms(state()))
    assert tensors_sha256("resnet", fold_batch_norms(read)) == tensors_sha256("resnet", read)
    # Constants that a folding tool left in are not added once more.
    both = folded() | {name: data for name, data in published().items() if "/BatchNorm/" in name and "cond" not in name}
    assert tensors_sha256("resnet", facenet_state_dict(read_graph(written(both)))) == tensors_sha256("resnet", read)


def test_folding_leaves_the_function_as_it_is() -> None:
    nets = [dict(model().state_dicts), {**model().state_dicts, "resnet": fold_batch_norms(state())}]
    pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        plain, other = (build_nets(type(model())(net, model().meta)).resnet(pixels) for net in nets)
    assert float((plain * other).sum(dim=1).min()) > 1 - 1e-6


def test_a_scale_of_the_norm_is_taken() -> None:
    gamma = np.linspace(0.5, 2, 32, dtype="<f4")
    for name in ("gamma", "Const"):
        read = facenet_state_dict(read_graph(written(published() | {"g": const(f"{FIRST}/BatchNorm/{name}", gamma)})))
        assert np.array_equal(read["conv2d_1a.bn.weight"].numpy(), gamma)
    # A constant of another shape is none.
    other = const(f"{FIRST}/BatchNorm/Const", np.zeros(1, "<f4"))
    read = facenet_state_dict(read_graph(written(published() | {"g": other})))
    assert bool((read["conv2d_1a.bn.weight"] == 1).all())


@pytest.mark.parametrize(
    "name",
    [
        f"{FIRST}/weights", f"{FIRST}/BatchNorm/beta",
        "InceptionResnetV1/Mixed_6a/Branch_1/Conv2d_0b_3x3/BatchNorm/moving_variance",
        "InceptionResnetV1/Repeat_2/block8_5/mul/x", "InceptionResnetV1/Block8/Conv2d_1x1/biases",
        "InceptionResnetV1/Bottleneck/BatchNorm/moving_mean",
    ],
)  # fmt: skip
def test_the_first_node_that_is_missing_is_named(name: str) -> None:
    refused({key: data for key, data in published().items() if key != name}, f"no node '{name}'")


def test_another_network_is_refused_by_its_first_node() -> None:
    refused({name.replace("V1", "V2"): data.replace(b"V1/", b"V2/") for name, data in published().items()},
            f"no node '{FIRST}/weights'")  # fmt: skip
    refused({"a": const("MobilenetV1/Conv2d_0/weights", np.zeros((3, 3), "<f4"))}, f"no node '{FIRST}/weights'")


def test_128_dimensions_are_refused_in_words() -> None:
    small = const("InceptionResnetV1/Bottleneck/weights", np.zeros((1792, 128), "<f4"))
    refused(
        published() | {"InceptionResnetV1/Bottleneck/weights": small}, "in 128 dimensions .*512 are needed.*of 2017"
    )


def test_numbers_that_make_another_network_are_refused() -> None:
    ones = np.ones(32, "<f4")
    for name, data, why in (
        ("InceptionResnetV1/Repeat/block35_1/mul/x", np.array(0.1, "<f4"), "is 0.1, 0.17 is needed"),
        ("InceptionResnetV1/Block8/mul/x", np.array(0.2, "<f4"), "is 0.2, 1 is needed"),
        (f"{FIRST}/BatchNorm/batchnorm/add/y", np.array(1e-5, "<f4"), "is 1e-05, 0.001 is needed"),
        (f"{FIRST}/BatchNorm/moving_variance", -ones, "negative variances"),
        (f"{FIRST}/BatchNorm/moving_variance", ones * np.nan, "not finite"),
        (f"{FIRST}/BatchNorm/beta", np.ones(31, "<f4"), "the shape 31, 32 is needed"),
        (f"{FIRST}/weights", np.zeros((3, 32, 3, 3), "<f4"), "the shape 3 x 32 x 3 x 3, 3 x 3 x 3 x 32 is needed"),
    ):
        refused(published() | {name: const(name, data)}, why)
    name = f"{FIRST}/BatchNorm/cond/FusedBatchNorm_1"
    refused(published() | {name: norm(name, 1e-5)}, f"{name}' has the epsilon 1e-05, 0.001 is needed")


def test_a_scale_of_one_may_be_left_out() -> None:
    name = "InceptionResnetV1/Block8/mul/x"
    facenet_state_dict(read_graph(written({key: data for key, data in published().items() if key != name})))


def test_a_graph_as_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "my model.PB"
    path.write_bytes(written(published()))
    digest = file_sha256(path)
    found = resolve_weights(f"file://{str(path).replace(' ', '%20')}", cache_dir=tmp_path / "cache", sha256=digest)
    assert (found.path, found.label, found.trained) == (path, "file my model.PB", True)
    assert found.origin == f"file my model.PB, a TensorFlow graph (sha256 {digest})"
    built = read_model_file(build_model_file(found, tmp_path / "m.pt"))
    assert built.meta.origin == found.origin
    params = PipelineParams()
    # Its index is the one that facenet-pytorch's file of the same weights makes.
    assert model_fingerprint(built.state_dicts, params) == model_fingerprint(model().state_dicts, params)
    with path.open("ab") as stream:
        stream.write(b"\x22\x00")
    with pytest.raises(WeightsError, match="changed"):
        build_model_file(found, tmp_path / "n.pt")


def test_a_graph_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "copy_from_store", lambda _, target, __: target.write_bytes(written(folded())))
    found = resolve_weights("s3a://models/own.pb", cache_dir=tmp_path)
    assert (found.path.suffix, found.label) == (".pb", "file own.pb")
    monkeypatch.setattr(module, "copy_from_store", lambda _, target, __: target.write_bytes(b"<html>"))
    with pytest.raises(WeightsError, match=r"^weights file other\.pb: .*field"):
        resolve_weights("s3a://models/other.pb", cache_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [found.path.name, f"{found.path.name}.sha256"]


# What may be wrong with a constant. None: it is not there.
FAULTS: list[Callable[[str], bytes] | None] = [
    None,
    lambda name: const(name, np.zeros((2, 2, 2), "<f4")),
    lambda name: const(name, np.zeros(0, "<f4")),
    lambda name: node(name, "VariableV2"),
    lambda name: node(name, "Const", attribute("value", message(8, b"\x08\x01"))),
    lambda name: node(name, "Const", attribute("value", message(8, b"\x08"))),
]
NEEDED = st.sampled_from(sorted(name for name in facenet(STAND_IN, folded=False) if "/cond/" not in name))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(NEEDED.filter(lambda name: name != "InceptionResnetV1/Block8/mul/x"), st.sampled_from(FAULTS))
def test_any_fault_of_any_constant_is_found(name: str, fault: Callable[[str], bytes] | None) -> None:
    nodes = {key: data for key, data in published().items() if key != name}
    with pytest.raises(GraphError):
        facenet_state_dict(read_graph(written(nodes if fault is None else nodes | {name: fault(name)})))


def test_files_that_are_no_graph_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.pb"
    for data in (b"", b"<html>Please log in</html>", random_weights().path.read_bytes(), written(published())[:-1000]):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"^weights x\.pb: .*a frozen graph of davidsandberg/facenet") as caught:
            resolve_weights(str(path), cache_dir=tmp_path / "cache")
        assert caught.value.kind == "invalid"
