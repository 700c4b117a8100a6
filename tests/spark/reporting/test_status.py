"""One run, asked for by its id: what a scheduler goes by where spark-submit's exit code says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.reporting import status
from jobs.runs.record import open_run
from jobs.runs.results import Screened
from jobs.settings import load_settings
from tests.e2e.line import prepare, run_job
from tests.spark.helpers import job_for

pytestmark = pytest.mark.spark


def test_a_run_is_asked_for_by_its_id_and_waited_for(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepare(tmp_path / "line", [])

    def said(*arguments: str) -> tuple[int, dict[str, Any]]:
        return run_job("status", config, "--run-id", "n1", *arguments, read=lambda: capsys.readouterr().out)

    def asked(*arguments: str) -> tuple[int, str]:
        code, result = said(*arguments)
        return code, result["run"]["state"]

    assert asked() == (5, "unknown")
    naps: list[float] = []
    with open_run(job_for(spark, load_settings(config), "n1"), "reindex") as run:
        run.once(Screened, lambda: Screened(images=1))
        code, result = said()
        assert (code, result["run"]["state"]) == (5, "running")
        # Whoever killed it sees how far it was and how long its lease holds.
        assert "last step done: gate at 2" in result["message"]
        assert "its lease holds until" in result["message"]

        def nap(seconds: float) -> None:
            naps.append(seconds)
            run.lease.release()

        # It goes on asking while the run is heard of; without its lease the run is as good as dead.
        monkeypatch.setattr(status, "sleep", nap)
        assert asked("--wait") == (5, "silent")
        assert len(naps) == 1
    assert asked("--wait") == (0, "done")


def test_waiting_needs_a_run(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = prepare(tmp_path / "line", [])
    code, result = run_job("status", config, "--wait", read=lambda: capsys.readouterr().out)
    assert code == 2
    assert "--run-id" in result["message"]
