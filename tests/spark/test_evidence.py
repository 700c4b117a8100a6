"""Evidence (Guarantee 14): a chain that shows tampering, a record of processing, lineage; and no personal data."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.errors import BadInput, NotProvenError
from jobs.governance import audit
from jobs.governance.jurisdictions import policy_digest
from jobs.runs.evidence import last_head, read_head
from jobs.runs.record import open_run
from jobs.schemas import AUDIT_EVENTS, RUNS
from tests.spark.helpers import NOW, job_for, settings_for, warehouse_for

pytestmark = pytest.mark.spark


@pytest.fixture
def chained(spark, tmp_path: Path):
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    heads = [audit.append(warehouse, "run-done", f"r{n}", {"n": n}, now=NOW) for n in range(4)]
    return warehouse, heads


def test_guarantee_14_events_follow_from_each_other(chained) -> None:
    warehouse, heads = chained
    assert [head.seq for head in heads] == [1, 2, 3, 4]
    assert audit.verify(warehouse, heads[-1]) == audit.verify(warehouse, heads[0]) == heads[-1]


@pytest.mark.parametrize(
    "change",
    [
        {"facts": "'changed'"},
        {"at": "timestamp'2020-01-01 00:00:00'"},
        {"run_id": "'another'"},
        {"digest": "'0'"},
        {"previous": "'0'"},
    ],
)
def test_guarantee_14_a_changed_event_is_detected(chained, change) -> None:
    warehouse, _ = chained
    warehouse.delta(AUDIT_EVENTS).update("seq = 2", change)
    with pytest.raises(NotProvenError, match=r"Audit event [23]"):
        audit.verify(warehouse)


def test_guarantee_14_a_removed_event_and_a_cut_off_end_are_detected(chained) -> None:
    warehouse, heads = chained
    warehouse.delta(AUDIT_EVENTS).delete("seq = 4")
    # The chain alone cannot tell; the exported head can.
    assert audit.verify(warehouse).seq == 3
    with pytest.raises(NotProvenError, match="cut off"):
        audit.verify(warehouse, heads[-1])
    warehouse.delta(AUDIT_EVENTS).delete("seq = 2")
    with pytest.raises(NotProvenError, match="Audit event 3"):
        audit.verify(warehouse)


def test_two_writers_make_one_chain(spark, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    audit.append(warehouse, "first", "r", {}, now=NOW)

    def write(number: int) -> None:
        for _ in range(3):
            audit.append(warehouse, "race", f"r{number}", {"n": number}, now=NOW)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert audit.verify(warehouse).seq == 7


def test_a_run_leaves_events_a_policy_and_an_exported_head(spark, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    job = job_for(spark, settings, "r1")
    with open_run(job, "ingest"):
        pass
    warehouse = warehouse_for(spark, settings)
    head = last_head(spark, warehouse, settings)
    assert head == audit.verify(warehouse, head)
    kinds = [row["kind"] for row in warehouse.read(AUDIT_EVENTS).orderBy("seq").collect()]
    assert kinds == ["run-running", "run-done"]
    policies = {row["policy_digest"] for row in warehouse.read(RUNS).collect()}
    assert policies == {policy_digest()}
    (tmp_path / "no-head.json").write_text("{}")
    with pytest.raises(BadInput, match="no exported head"):
        read_head(spark, str(tmp_path / "no-head.json"))


def test_lineage_is_off_and_where_it_is_on_carries_purposes_and_policy(
    spark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(log), "append": True}
    for key, value in transport.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{key.upper()}", str(value))
    with open_run(job_for(spark, settings_for(tmp_path), "r1"), "ingest"):
        pass
    assert not log.exists()
    settings = settings_for(tmp_path, "governance.openlineage=true")
    with open_run(job_for(spark, settings, "r2"), "ingest"):
        pass
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    facets = events[0]["run"]["facets"]
    assert facets["faceReindex_purpose"]["purposes"] == list(settings.governance.purposes)
    assert facets["faceReindex_policy"]["policy_digest"] == policy_digest()
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"]
