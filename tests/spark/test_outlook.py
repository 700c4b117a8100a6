"""What comes due, as `expire` counts it for `metrics.file`: before it destroys anything, and once more behind it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.erasure.kinds import COMPLETE
from jobs.runs.results import Outlook
from jobs.schemas import ERASURE_REQUESTS, ERASURE_STEPS
from jobs.steps.outlook import outlook_settled, outlook_step
from tests.spark.indexed import Indexed, opened
from tests.unit.runs.samples import read

pytestmark = pytest.mark.spark


def test_permissions_that_end_and_erasures_that_are_open(indexed: Indexed, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    made = indexed.copy_to(tmp_path / "w", f"metrics.file={tmp_path}/m.prom")
    made.record(5, expires_at=now + timedelta(days=10))
    made.record(6, expires_at=now + timedelta(days=90))
    asked = [(f"q{days}", "image", "t", "k", "r", now - timedelta(days=days)) for days in (3, 40)]
    made.warehouse.append(made.spark.createDataFrame(asked, ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
    with opened(made, "expire", "x1") as (run, _):
        outlook_step(run)
        before, shown = run.result(Outlook), read(tmp_path / "m.prom")
        done = [("q40", COMPLETE, "x1", "{}", now), ("q3", COMPLETE, "x1", "{}", now)]
        made.warehouse.append(made.spark.createDataFrame(done, ERASURE_STEPS.columns), ERASURE_STEPS)
        outlook_settled(run)
        after = run.result(Outlook)
    assert before is not None
    assert (before.ending, before.open_requests) == (1, 2)
    assert before.records > 10
    assert before.oldest_request == pytest.approx((now - timedelta(days=40)).timestamp(), abs=0.01)
    assert shown["oldest_open_erasure_timestamp_seconds",] == before.oldest_request
    assert after == Outlook(records=before.records, ending=1, open_requests=0)
    assert read(tmp_path / "m.prom")["erasure_requests_open",] == 0


def test_nobody_asks_where_nobody_watches(indexed: Indexed, tmp_path: Path) -> None:
    made = indexed.copy_to(tmp_path / "w")
    with opened(made, "expire", "x1") as (run, _):
        outlook_step(run)
        outlook_settled(run)
        assert run.result(Outlook) is None
