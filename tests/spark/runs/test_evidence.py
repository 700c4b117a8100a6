"""Evidence (Guarantee 14): a chain that shows tampering, a record of processing, lineage; and no personal data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.errors import BadInput, NotProvenError
from jobs.governance import audit
from jobs.governance.jurisdictions import policy_digest
from jobs.runs.evidence import export_head, prove_audit, read_head
from jobs.runs.record import JobContext, open_run
from jobs.schemas import AUDIT_EVENTS, RUNS
from jobs.tables.files import create_text, read_text
from tests.spark.helpers import NOW, job_for, settings_for, warehouse_for

pytestmark = pytest.mark.spark

#: A row of the trail.
Event = dict[str, Any]


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of five runs' ends, each with its head."""
    folder = tmp_path_factory.mktemp("audit")
    settings = settings_for(folder)
    warehouse = warehouse_for(spark, settings)
    for n in range(5):
        head = audit.append(warehouse, "run-done", f"r{n}", {"n": n, "heads": "warehouse"}, now=NOW)
        assert export_head(spark, warehouse, settings, head) is None
        if n == 2:
            shutil.copytree(folder / "warehouse" / "audit_events", folder / "earlier")
    return folder


@pytest.fixture
def trail(spark: SparkSession, written: Path, tmp_path: Path) -> tuple[JobContext, Path]:
    """A copy of one's own: the job that looks at it, and the folder of heads."""
    shutil.copytree(written / "warehouse", tmp_path / "warehouse")
    return job_for(spark, settings_for(tmp_path)), tmp_path / "warehouse" / "_evidence" / "audit-heads"


def test_guarantee_14_events_follow_from_each_other_and_every_head_agrees(trail: tuple[JobContext, Path]) -> None:
    job, heads = trail
    found = prove_audit(job.warehouse, job.settings, str(heads / "000000000003.json"))
    assert (found.data["events"], found.data["heads"]) == (5, 5)
    assert "the head of" in found.message


def _at(number: int, **changes: object) -> Callable[[list[Event]], list[Event]]:
    """Event ``number`` with other fields."""
    return lambda events: [{**e, **changes} if e["seq"] == number else e for e in events]


# One change at a time, in ways that a hand or a program would make it.
EVENTS: dict[str, Callable[[list[Event]], list[Event]]] = {
    "edited": _at(2, facts="changed"),
    "its time edited": _at(2, at=NOW + timedelta(seconds=1)),
    "of another run": _at(2, run_id="another"),
    "its digest edited": _at(2, digest="0"),
    "the last one's digest taken out": _at(5, digest=None),
    "its link edited": _at(2, previous="0"),
    "fields moved so that the text stays": _at(2, kind=None, run_id="run-done\nr1"),
    "reordered": lambda events: [{**e, "seq": {2: 3, 3: 2}.get(e["seq"], e["seq"])} for e in events],
    "duplicated": lambda events: [*events, events[1]],
    "the last one duplicated": lambda events: [*events, events[4]],
    "inserted": lambda events: [*events, {**events[2], "run_id": "another", "digest": "0" * 64}],
    "inserted without a number": lambda events: [*events, {**events[2], "seq": None}],
    "removed in the middle": lambda events: events[:2] + events[3:],
    "removed at the beginning": lambda events: events[1:],
}


@pytest.fixture(scope="module")
def events(spark: SparkSession, written: Path) -> list[Event]:
    warehouse = warehouse_for(spark, settings_for(written))
    return [row.asDict() for row in warehouse.read(AUDIT_EVENTS).orderBy("seq").collect()]


@pytest.mark.parametrize("change", EVENTS)
def test_guarantee_14_a_changed_trail_is_detected_by_itself(
    spark: SparkSession, events: list[Event], change: str
) -> None:
    changed = [tuple(event.values()) for event in EVENTS[change](events)]
    with pytest.raises(NotProvenError, match=r"Audit event|events where"):
        audit.verify(spark.createDataFrame(changed, AUDIT_EVENTS.columns))


def _head_file(folder: Path, name: str, seq: int, digest: str = "0" * 64) -> None:
    # Hadoop's checksum beside it would tell: whoever forges a head forges that.
    (folder / f".{name}.crc").unlink(missing_ok=True)
    (folder / name).write_text(json.dumps({"seq": seq, "digest": digest}) + "\n")


def _torn(folder: Path, seq: int, text: str) -> None:
    name = f"{seq:012d}.json"
    (folder / f".{name}.crc").unlink(missing_ok=True)
    (folder / name).write_text(text)


def _gone(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number:012d}.json").unlink()


# What is done to the heads when the last two events are removed, or nothing is.
HEADS: dict[str, tuple[bool, Callable[[Path], object], str]] = {
    "a cut-off end": (True, lambda _: None, r"000000000004\.json .* cut off"),
    "and a head that names no event": (
        True,
        lambda heads: (heads / "999999999999.json").write_text('{"seq":0}'),
        r"no exported head.*999999999999",
    ),
    "and a head of the future": (True, lambda heads: _head_file(heads, "999999999999.json", 999999999999), "cut off"),
    "a fork": (False, lambda heads: _head_file(heads, "000000000003.json", 3), r"000000000003\.json .* written anew"),
    "a head under another's name": (
        False,
        lambda heads: [
            (heads / f"{dot}000000000002.json{crc}").rename(heads / f"{dot}000000000009.json{crc}")
            for dot, crc in (("", ""), (".", ".crc"))
        ],
        "not that of their name",
    ),
    "a head edited in place": (
        False,
        lambda heads: (heads / "000000000003.json").write_text("{}"),
        r"no exported head.*000000000003\.json",
    ),
    "a gap": (False, lambda heads: _gone(heads, 3), "1 heads are missing.*event 3"),
    "an empty head": (False, lambda heads: _torn(heads, 3, ""), "1 heads are missing.*event 3"),
    "a head of no event that was cut off": (
        False,
        lambda heads: _torn(heads, 6, '{"seq": 6, "d'),
        r"no exported head.*000000000006\.json",
    ),
    "the oldest heads removed": (
        False,
        lambda heads: _gone(heads, 1, 2),
        "2 heads are missing.*event 1",
    ),
    "heads that shrink": (False, lambda heads: _gone(heads, 5), "1 heads are missing.*event 5"),
    "no head left": (
        False,
        lambda heads: _gone(heads, *range(1, 6)),
        "5 heads are missing.*event 1",
    ),
    "the folder removed": (False, shutil.rmtree, "5 heads are missing"),
    "rubbish": (False, lambda heads: (heads / "notes.txt").write_bytes(b"\xff" * 9), r"no exported head.*notes\.txt"),
    "a huge file": (False, lambda heads: (heads / "huge.json").write_bytes(b"1" * 99_999), r"no exported head.*huge"),
}


@pytest.mark.parametrize("change", HEADS)
def test_guarantee_14_every_head_must_be_in_the_chain_and_none_missing(
    trail: tuple[JobContext, Path], change: str
) -> None:
    job, heads = trail
    cut, act, message = HEADS[change]
    if cut:
        job.warehouse.delta(AUDIT_EVENTS).delete("seq > 3")
        # The table alone cannot tell.
        assert audit.verify(job.warehouse.read(AUDIT_EVENTS)).seq == 3
    act(heads)
    with pytest.raises(NotProvenError, match=message):
        prove_audit(job.warehouse, job.settings)


def test_guarantee_14_a_trail_that_was_cut_off_does_not_write_over_its_heads(
    spark: SparkSession, written: Path, tmp_path: Path
) -> None:
    """The table from a backup, the heads as they were."""
    shutil.copytree(written / "earlier", tmp_path / "warehouse" / "audit_events")
    shutil.copytree(written / "warehouse" / "_evidence", tmp_path / "warehouse" / "_evidence")
    job, heads = job_for(spark, settings_for(tmp_path)), tmp_path / "warehouse" / "_evidence" / "audit-heads"
    before = {file.name: file.read_text() for file in heads.glob("*.json")}
    head = audit.append(job.warehouse, "run-done", "later", {}, now=NOW)
    fault = export_head(job.spark, job.warehouse, job.settings, head)
    assert fault is not None
    assert "holds another head" in fault
    assert {file.name: file.read_text() for file in heads.glob("*.json")} == before
    with pytest.raises(NotProvenError, match="cut off"):
        prove_audit(job.warehouse, job.settings)


def test_guarantee_14_events_and_heads_removed_together_show_by_a_head_kept_elsewhere(
    trail: tuple[JobContext, Path], tmp_path: Path
) -> None:
    job, heads = trail
    shutil.copy(heads / "000000000005.json", tmp_path / "kept.json")
    job.warehouse.delta(AUDIT_EVENTS).delete("seq > 3")
    for number in (4, 5):
        (heads / f"{number:012d}.json").unlink()
    assert prove_audit(job.warehouse, job.settings).data["events"] == 3
    with pytest.raises(NotProvenError, match=r"kept\.json .* cut off"):
        prove_audit(job.warehouse, job.settings, str(tmp_path / "kept.json"))


def test_a_run_that_was_killed_before_it_wrote_its_head_leaves_that_to_the_next(trail: tuple[JobContext, Path]) -> None:
    job, heads = trail
    for n in range(3):
        audit.append(job.warehouse, "run-failed", f"killed-{n}", {}, now=NOW)
    # Two of them in the middle of it, in a release that wrote heads in their place.
    _torn(heads, 7, "")
    _torn(heads, 8, '{"seq": 8, "dig')
    audit.append(job.warehouse, "run-running", "next", {}, now=NOW)
    with pytest.raises(NotProvenError, match=r"3 heads are missing.*event 6"):
        prove_audit(job.warehouse, job.settings)
    assert (
        export_head(
            job.spark, job.warehouse, job.settings, audit.append(job.warehouse, "run-done", "next", {}, now=NOW)
        )
        is None
    )
    assert prove_audit(job.warehouse, job.settings).data["heads"] == 9


class _Torn(str):
    """A text whose writing fails once its file is open."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        raise OSError("disk full")


def test_guarantee_14_a_head_is_written_whole_or_not_at_all(spark: SparkSession, tmp_path: Path) -> None:
    place = str(tmp_path / "000000000001.json")
    with pytest.raises(OSError, match="disk full"):
        create_text(spark, place, _Torn("a head"))
    assert not Path(place).exists()
    assert [create_text(spark, place, "a head"), create_text(spark, place, "another")] == [True, False]
    assert {file.name for file in tmp_path.iterdir()} == {"000000000001.json", ".000000000001.json.crc"}
    assert read_text(spark, place) == "a head"


def test_two_writers_make_one_chain(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    audit.append(warehouse, "first", "r", {}, now=NOW)

    def write(number: int) -> None:
        for _ in range(3):
            audit.append(warehouse, "race", f"r{number}", {"n": number}, now=NOW)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert audit.verify(warehouse.read(AUDIT_EVENTS)).seq == 7


def test_a_run_leaves_events_a_policy_and_an_exported_head(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    job = job_for(spark, settings, "r1")
    with open_run(job, "ingest"):
        pass
    warehouse = warehouse_for(spark, settings)
    found = prove_audit(job.warehouse, job.settings)
    assert (found.data["events"], found.data["heads"]) == (2, 1)
    kinds = [row["kind"] for row in warehouse.read(AUDIT_EVENTS).orderBy("seq").collect()]
    assert kinds == ["run-running", "run-done"]
    policies = {row["policy_digest"] for row in warehouse.read(RUNS).collect()}
    assert policies == {policy_digest()}
    (tmp_path / "no-head.json").write_text("{}")
    with pytest.raises(BadInput, match="no exported head"):
        read_head(spark, str(tmp_path / "no-head.json"))


@pytest.mark.faults
def test_lineage_is_off_and_where_it_is_on_carries_purposes_and_policy(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
