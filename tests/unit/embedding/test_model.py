"""What the settings say of a worker reaches it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.embedding.model import Model, ship_model
from jobs.settings import load_settings
from tests.golden.support import model_path
from udfs.params import PipelineParams
from udfs.weights import resolve_weights

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("overrides", "share", "without_gpu"),
    [
        ([], 0.0, "fail"),
        (["executor.gpus_per_task=0.5"], 0.5, "fail"),
        (["executor.gpus_per_task=1", "executor.without_gpu=processor"], 1.0, "processor"),
    ],
)
def test_a_worker_knows_its_share_of_a_gpu_and_what_to_do_without(
    overrides: list[str], share: float, without_gpu: str, tmp_path: Path
) -> None:
    shipped: list[str] = []
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(addFile=shipped.append))
    model = Model(model_path(), resolve_weights("random", cache_dir=tmp_path), PipelineParams(), "f")
    spec = ship_model(spark, model, load_settings(overrides=overrides, environ={}))
    assert (spec.gpu_share, spec.without_gpu) == (share, without_gpu)
    assert shipped == [str(model_path())]
