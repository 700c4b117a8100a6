"""`plan` on real tables: what runs recorded becomes rates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.index.protocol import IndexSpec
from jobs.planning.model import CORES, GPUS, NODES
from jobs.planning.rates import choose, recorded
from jobs.runs.machines import Machines, cluster_resources
from jobs.schemas import RUN_STEPS
from jobs.settings import load_settings
from jobs.tables.store import Warehouse
from tests.spark.helpers import settings_for, warehouse_for

pytestmark = pytest.mark.spark

START = datetime(2026, 1, 31, 2, tzinfo=UTC)


def steps(run_id: str, at: datetime, *done: tuple[str, float, dict[str, Any], int], state: str = "done") -> list[Any]:
    """Rows of `run_steps`: name, seconds, result, token, one after the other."""
    rows = []
    for name, seconds, result, token in done:
        ended = at + timedelta(seconds=seconds)
        rows.append((run_id, name, state, at, ended, seconds, json.dumps(result), token))
        at = ended
    return rows


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = warehouse_for(spark, settings_for(tmp_path_factory.mktemp("plan")))
    on = {"cores": 8, "gpus": 2}
    node = {"by_import": True, "data_nodes": 4}
    night = steps(
        "n2",
        START,
        ("gate", 100.0, {"images": 60_000, "cores": 8, "gpus": 2}, 7),
        ("embed/0-3", 100.0, {"images": 30_000, "faces": 40_000, **on}, 7),
        # Executors came and went: each chunk counts with those that it had.
        ("embed/4-7", 300.0, {"images": 30_000, "faces": 40_000, "cores": 4, "gpus": 1}, 7),
        # By the name that an earlier release gave it.
        ("resalt", 50.0, {"faces": 0}, 7),
        ("stage", 50.0, {"rows": 80_000, "path": "p", "files": [], "buckets": 4, **on}, 7),
        ("import/0", 0.0, {"job_id": "1", "state": "done"}, 7),
        ("import", 100.0, {"collection": "c", "rows": 80_000, **node}, 7),
        ("index", 200.0, {"index": "HNSW", "rows": 80_000, **node}, 7),
        ("remove-unpermitted-loaded", 1.0, {"faces": 0}, 7),
        ("verify", 100.0, {"collection": "c", "rows_found": 80_000, "counts": {}, **on}, 7),
    )
    broken = steps("n3", START + timedelta(days=1), ("embed/0-3", 900.0, {"images": 9}, 8), state="forgotten")
    # Written before machines were recorded.
    old = steps("n1", START - timedelta(days=1), ("stage", 100.0, {"rows": 80_000}, 6))
    warehouse.append(spark.createDataFrame([*night, *broken, *old], RUN_STEPS.columns), RUN_STEPS)
    return warehouse


def test_steps_are_summed_by_run_and_kind(written: Warehouse) -> None:
    runs = recorded(written)
    assert [run.run_id for run in runs] == ["n2", "n1"]
    embed = runs[0].steps["embed"]
    assert (embed.seconds, embed.images) == (400, 60_000)
    assert (embed.machines(CORES), embed.machines(GPUS)) == (5, 1.25)
    assert runs[0].steps["gate"].seconds == 100
    assert runs[0].steps["resolve-id-collisions"].seconds == 50
    assert runs[0].steps["import"].machines(NODES) == 4
    assert runs[0].steps["import"].one_process
    assert runs[1].steps["stage"].machines(CORES) == 0


def test_rates_are_those_of_the_run(written: Warehouse) -> None:
    settings = load_settings(overrides=["milvus.uri=http://milvus:19530"], environ={})
    rates = choose(settings, recorded(written), IndexSpec("HNSW"), 10**6, by_import=True)
    found = (rates.gate, rates.embed_gpus, rates.host, rates.stage, rates.load, rates.index, rates.verify)
    assert [rate.value for rate in found if rate] == [75, 120, 33.38, 100, 200, 100, 100]
    assert rates.embed_gpus is not None
    assert rates.embed_gpus.source == "run n2, 2026-01-31: 60,000 images in 400 s on 1.25 GPUs"
    assert rates.embed_cores is not None
    assert "bench/" in rates.embed_cores.source


def test_nothing_on_record_is_no_error(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert recorded(warehouse_for(spark, settings, read_only=True)) == []
    assert cluster_resources(spark, settings) == Machines(cores=2)
    # Local mode has no executor besides the driver, and so none with a GPU.
    with_gpus = settings_for(tmp_path, "executor.gpus_per_task=1")
    assert cluster_resources(spark, with_gpus) == Machines(cores=2)
