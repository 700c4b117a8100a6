"""`calibrate` on a local session: on record, in the plan's rates, and nothing else is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import schemas
from jobs.calibrate import main
from jobs.planning.inputs import plan_inputs
from jobs.planning.model import Work
from jobs.runs.history import last_fingerprint
from jobs.settings import Settings
from jobs.tables.control import CONTROL_TABLES
from jobs.tables.store import Warehouse
from tests.spark.helpers import job_for, settings_for, warehouse_for

pytestmark = pytest.mark.spark


def command(settings: Settings, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what it says, of the command as it is typed."""
    given = ["model.weights=random", f"model.cache_dir={settings.model.cache_dir}", f"warehouse={settings.warehouse}"]
    sets = [word for setting in given for word in ("--set", setting)]
    with pytest.raises(SystemExit) as ended:
        main.main([*arguments, *sets, "--json"], prog_name="calibrate")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    return int(ended.value.code or 0), said


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


def rows_of_data(warehouse: Warehouse) -> int:
    data = [spec for spec in schemas.ALL_TABLES if spec not in CONTROL_TABLES and warehouse.exists(spec)]
    return sum(warehouse.read(spec).count() for spec in data)


def test_a_calibration_is_on_record_and_the_next_plan_counts_with_it(
    spark: SparkSession, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command(settings, capsys, "--seconds", "3", "--run-id", "first-look")
    assert (code, said.get("run_id")) == (0, "first-look"), said
    assert said["measured"]["devices"] == ["cpu"]
    assert (said["measured"]["executors"], said["measured"]["tasks"], said["measured"]["cores"]) == (1, 2, 2)
    assert all(said["measured"][part] > 0 for part in ("images", "decoded", "cut", "embedded"))
    assert set(said["rates"]) == {"embed_cores_float32", "host_float32"}
    # Detection alone is faster than with what comes on top, and decoding alone faster than both.
    assert said["rates"]["embed_cores_float32"] < said["measured"]["images"] / 2 < said["rates"]["host_float32"] * 2

    rates = plan_inputs(job_for(spark, settings), Work(new=1000, faces_each=1.55), data_nodes=None, hypothetical=True)
    for rate in (rates.rates.embed_cores, rates.rates.host):
        assert rate is not None
        assert rate.source.startswith("calibrate, run first-look, 20")
    assert rates.rates.embed_cores is not None
    assert rates.rates.embed_cores.value == pytest.approx(said["rates"]["embed_cores_float32"])

    warehouse = warehouse_for(spark, settings)
    runs = warehouse.rows(schemas.RUNS, "job, state, exit_code", order_by="recorded_at")
    assert [(row["job"], row["state"]) for row in runs] == [("calibrate", "running"), ("calibrate", "done")]
    assert [row["step"] for row in warehouse.rows(schemas.RUN_STEPS, "step")] == ["calibrate"]
    assert rows_of_data(warehouse) == 0
    # It is no run that has embedded with this model: what a plan counts as reused does not hang on it.
    assert last_fingerprint(warehouse, None) is None
    assert not (Path(settings.warehouse) / "_staging").exists()

    # Measured once: a resume says the same, and is done at once.
    code, again = command(settings, capsys, "--seconds", "600", "--run-id", "first-look")
    assert (code, again["measured"]) == (0, said["measured"])


def test_a_dry_run_writes_nothing(spark: SparkSession, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = command(settings, capsys, "--dry-run")
    assert code == 0
    assert "would measure the executors for 60 s" in said["message"]
    assert not Path(settings.warehouse).exists()
