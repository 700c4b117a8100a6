"""What tells a time tells it in UTC, wherever the machine stands. (Times out of Spark: tests/spark/test_clocks.py.)"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.erasure.receipts import utc_stamp
from jobs.governance.basis_lines import read_json
from jobs.reporting.html import _environment
from jobs.runs.console import Console
from jobs.runs.record import new_run_id, utc_now
from jobs.tables.control import DeltaRsTable, Query

pytestmark = pytest.mark.unit

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(params=["Asia/Kolkata", "America/St_Johns"], autouse=True)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """A machine half an hour off the full ones, east or west of Greenwich."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        assert datetime.now().astimezone().utcoffset() != timedelta(0)
        yield request.param
    time.tzset()


def test_the_times_of_a_receipt_and_of_the_report() -> None:
    assert utc_stamp(NOON.timestamp()) == "2026-01-31T12:00:00Z"
    told = {name: _environment().filters[name](NOON.timestamp()) for name in ("moment", "clock", "axis")}
    assert told == {"moment": "31 Jan 2026, 12:00 UTC", "clock": "12:00:00", "axis": "31 Jan, 12:00"}


def test_run_ids_and_lines_have_the_time_of_now_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    Console(log_format="json").note("a line")
    line = json.loads(capsys.readouterr().err)
    told = [
        utc_now(),
        datetime.fromisoformat(line["time"]),
        datetime.strptime(new_run_id()[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
    ]
    assert [at for at in told if not before <= at <= datetime.now(UTC)] == []


def test_times_of_control_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    schema = pa.schema([("run_id", pa.string()), ("at", pa.timestamp("us", "UTC"))])
    DeltaTable.create(tmp_path, schema)
    table = DeltaRsTable(str(tmp_path))
    kolkata = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    table.append([("utc", NOON), ("kolkata", kolkata)], None)
    found = table.select(Query("run_id, at", order_by="run_id"))
    assert [(row["run_id"], row["at"], row["at"].utcoffset()) for row in found] == [
        ("kolkata", NOON, timedelta(0)),
        ("utc", NOON, timedelta(0)),
    ]
    assert f"{found[0]['at']:%Y-%m-%d %H:%M} UTC" == "2026-01-31 12:00 UTC"


def test_the_times_of_a_record_are_instants() -> None:
    record = {
        "record_id": "r",
        "events": [{"event_time": "2026-01-31T17:30:00+05:30", "event_type": "a", "event_state": "b"}],
    }
    line = read_json(json.dumps(record).encode())
    assert line is not None
    assert line.record is not None, line
    (event,) = line.record["events"]
    assert (event["event_time"], event["event_time"].utcoffset()) == (NOON, timedelta(0))
