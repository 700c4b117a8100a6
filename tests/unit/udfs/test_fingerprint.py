from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from udfs import fingerprint as module
from udfs.fingerprint import model_fingerprint
from udfs.params import PipelineParams

pytestmark = pytest.mark.unit

NETS = {"a": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}, "b": {"w": torch.zeros(2)}}
OTHER: dict[str, Any] = {
    "min_face_px": 21, "detector_min_face_px": 24, "thresholds": (0.6, 0.7, 0.8), "pyramid_factor": 0.7,
    "detection_long_side": 0, "decode_long_side": 0, "min_confidence": 0.91, "max_faces": 31, "crop_size": 161,
    "crop_margin_px": 14, "dtype": "bfloat16", "max_pixels": 1, "max_bytes": 1,
    "max_decode_bytes": 1, "max_scans": 1, "cover_iou": 0.4,
}  # fmt: skip


def test_every_parameter_counts() -> None:
    # There is one decoder; its name is among the digest's parts.
    assert OTHER.keys() == {f.name for f in dataclasses.fields(PipelineParams)} - {"decoder"}
    assert PipelineParams().to_dict()["decoder"] == "libjpeg-turbo"
    base = model_fingerprint(NETS, PipelineParams())
    others = {
        model_fingerprint(NETS, dataclasses.replace(PipelineParams(), **{name: value})) for name, value in OTHER.items()
    }
    assert len(others - {base}) == len(OTHER)
    assert len(base) == 64


def test_every_tensor_counts_by_name_type_shape_and_value() -> None:
    params = PipelineParams()
    changed = [
        {**NETS, "a": {**NETS["a"], "w": NETS["a"]["w"] + 1e-6}},
        {**NETS, "a": {**NETS["a"], "w": NETS["a"]["w"].reshape(3, 2)}},
        {**NETS, "a": {**NETS["a"], "w": NETS["a"]["w"].double()}},
        {**NETS, "a": {**NETS["a"], "n": torch.tensor(4)}},
        {**NETS, "a": {"v": NETS["a"]["w"], "n": NETS["a"]["n"]}},
        {"a": NETS["b"], "b": NETS["a"]},
        {"a": NETS["a"]},
    ]
    assert len({model_fingerprint(nets, params) for nets in [NETS, *changed]}) == len(changed) + 1


def test_order_and_memory_layout_do_not_count() -> None:
    turned = {"b": NETS["b"], "a": {"n": NETS["a"]["n"], "w": NETS["a"]["w"].t().contiguous().t()}}
    assert model_fingerprint(turned, PipelineParams()) == model_fingerprint(NETS, PipelineParams())


def test_the_code_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_fingerprint(NETS, PipelineParams())
    for name in module.ALGORITHM:
        with monkeypatch.context() as patch:
            patch.setitem(module.ALGORITHM, name, "other")
            assert model_fingerprint(NETS, PipelineParams()) != before
    assert model_fingerprint(NETS, PipelineParams()) == before


def test_half_precision_tensors_hash() -> None:
    assert model_fingerprint({"a": {"w": torch.ones(2, dtype=torch.bfloat16)}}, PipelineParams())
