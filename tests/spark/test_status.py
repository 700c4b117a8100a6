"""One run, asked for by its id: what a scheduler goes by where spark-submit's exit code says nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import status
from jobs.errors import NotProvenError
from jobs.runs.history import standing
from jobs.runs.record import open_run
from jobs.settings import load_settings
from tests.e2e.line import prepare, run_job
from tests.spark.helpers import job_for, warehouse_for

pytestmark = pytest.mark.spark


def test_the_exit_code_of_a_run_is_had_by_its_id(spark, tmp_path: Path, capsys, monkeypatch) -> None:
    config = prepare(tmp_path / "line", [])
    settings = load_settings(config)
    warehouse = warehouse_for(spark, settings, read_only=True)

    def asked(*arguments: str) -> tuple[int, str]:
        code, result = run_job("status", config, "--run-id", "n1", *arguments, read=lambda: capsys.readouterr().out)
        return code, result["run"]["state"]

    assert asked() == (5, "unknown")

    def night(end: Exception | None) -> None:
        with open_run(job_for(spark, settings, "n1"), "reindex"):
            assert asked() == (5, "running")
            # Its lease has run out in an hour, if it is not heard of until then.
            assert standing(warehouse, "n1", datetime.now(UTC) + timedelta(hours=1)).state == "silent"
            if end:
                raise end

    with pytest.raises(NotProvenError):
        night(NotProvenError("rows are missing."))
    assert asked() == (4, "failed")

    # --wait goes on asking while the run is alive, and ends with it.
    naps: list[float] = []
    with open_run(job_for(spark, settings, "n1"), "reindex") as run:

        def nap(seconds: float) -> None:
            naps.append(seconds)
            run.lease.release()

        monkeypatch.setattr(status.time, "sleep", nap)
        assert asked("--wait") == (5, "silent")
        assert len(naps) == 1
    assert asked("--wait") == (0, "done")


def test_waiting_needs_a_run(spark, tmp_path: Path, capsys) -> None:
    config = prepare(tmp_path / "line", [])
    code, result = run_job("status", config, "--wait", read=lambda: capsys.readouterr().out)
    assert code == 2
    assert "--run-id" in result["message"]
