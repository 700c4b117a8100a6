"""What steps record: the JSON that stands in `run_steps` today and stood there before, and who reads which of it."""

from __future__ import annotations

import ast
import json
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from jobs.runs import results
from jobs.runs.record import Run
from jobs.runs.results import (
    Embedded,
    FileImported,
    IdCollisionsResolved,
    Imported,
    Planned,
    Purged,
    Screened,
    Staged,
    Verified,
    present_name,
)
from jobs.runs.step_result import StepResult

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

JOBS = Path(__file__).parents[3] / "jobs"
KINDS: dict[str, type[StepResult]] = {
    kind.__name__: kind
    for kind in vars(results).values()
    if isinstance(kind, type) and issubclass(kind, StepResult) and kind is not StepResult
}
PROOF = (
    '"rows_expected": 2, "rows_found": 2, "keys_missing": 0, "keys_unexpected": 0, "keys_duplicated": 0, '
    '"canaries_found": 0, "recall": 1.0, "self_hit": 1.0, "sample_size": 2, "latency_p50_ms": 1.5, '
    '"latency_p99_ms": 2.5, "passed": true, "faults": [], '
)
COUNTS = (
    '"counts": {"images": 3, "statuses": {"embedded": 2, "refused": 1}, "reasons": {"refused:NO_BASIS": 1}, '
    '"faces": 2, "faults": []}'
)
#: To the letter as release after release has written them; what reads them has to go on doing so.
WRITTEN = [
    ("gate", '{"images": 3, "accepted": 2, "refused": 1, "newly_refused": 0, "reasons": {"NO_BASIS": 1}, '
             '"fingerprint": "ff", "weights": "random(seed=0), UNTRAINED", "cores": 2, "gpus": 0}'),
    ("remove-unpermitted", '{"faces": 0}'),
    ("withdraw", '{"faces": 0}'),
    ("plan", '{"chunks": [[0, 3, 20], [4, 4, 7]], "images": 27}'),
    ("embed/0-3", '{"images": 20, "faces": 22, "statuses": {"embedded": 19, "no_face": 1}, "device": {"names": '
                  '["cpu"], "network_s": 1.25, "elapsed_s": 4.0}, "cores": 2, "gpus": 0}'),
    ("resolve-id-collisions", '{"faces": 0}'),
    ("resalt", '{"faces": 0}'),
    ("stage", '{"path": "/w/_staging/night-1/3", "apart": false, "rows": 22, "buckets": 4, "files": [{"path": '
              '"/w/_staging/night-1/3/part-0.parquet", "rows": 22, "bytes": 4096, "sha256": "ab", "file_no": 0, '
              '"buckets": null}], "cores": 2, "gpus": 0}'),
    ("import", '{"collection": "faces_night_1", "rows": 22, "by_import": true, "data_nodes": 4}'),
    ("import/0", '{"job_id": "453", "state": "done", "collection": "faces_night_1"}'),
    ("index", '{"index": "HNSW", "rows": 22, "by_import": false, "data_nodes": 1}'),
    ("remove-unpermitted-loaded", '{"faces": 1}'),
    ("withdraw-loaded", '{"faces": 1}'),
    ("verify", '{"collection": "faces_night_1", ' + PROOF + '"distances": null, "implausible": "", '
               '"vectors_changed": 0, ' + COUNTS + ', "cores": 2, "gpus": 0}'),
    ("verify", '{"collection": "faces_night_1", ' + PROOF + '"distances": {"faces": 50, "nearest": [0, 50], "low": '
               '-0.1, "median": 0.2, "high": 0.5, "spread": 0.1}, "implausible": "", "vectors_changed": 0, ' + COUNTS
               + ', "cores": 2, "gpus": 0}'),
    ("promote", '{"alias": "faces", "current": "faces_night_1", "previous": null, "dropped": ["faces_night_0"], '
                '"watched": {"searches": 90, "p50_ms": 1.0, "p99_ms": 2.0}}'),
    ("promote", '{"alias": "faces", "current": "faces_night_1", "previous": "faces_night_0", "dropped": [], '
                '"watched": null}'),
    ("maintain", '{"tables": 9}'),
    ("alias-switch", '{"alias": "faces", "collection": null, "to": "faces_night_1"}'),
    ("alias", '{"alias": "faces", "collection": "faces_night_1", "to": null}'),
    ("fill-collection", '{"collection": "faces_night_1"}'),
    ("drop-collections", '{"dropped": ["faces_night_0"], "index": ["4f"]}'),
    ("dropped-collections", '{"dropped": ["faces_night_0"]}'),
    ("lost-collections", '{"dropped": ["faces_night_0"]}'),
    ("sync-remove", '{"collection": "", "removed": 0}'),
    ("sync-withdraw", '{"collection": "", "removed": 0}'),
    ("sync-add", '{"added": 3, "left": 0}'),
    ("bring-back", '{"added": 1, "left": 0}'),
    ("outlook", '{"records": 900, "ending": 40, "open_requests": 2, "oldest_request": 1767225600.0}'),
    ("outlook", '{"records": 0, "ending": 0, "open_requests": 0, "oldest_request": null}'),
    ("expire-due", '{"due": 4}'),
    ("erase-find", '{"items": {"image": 1, "face": 1, "record": 1}}'),
    ("erase-index", '{"collections": {"faces_night_1": {"before": 5, "erased": 1, "after": 4, "left": 0, '
                    '"compacted": true}, "faces_night_2": {"dropped": true}, "faces_night_0": {"lost": true}}}'),
    ("erase-staged", '{"folders": 1}'),
    ("erase-shared", '{"images": 0}'),
    ("erase-tables", '{"tables": {"images": {"before": 5, "erased": 1, "after": 4, "left": 0}}}'),
    ("erase-purge", '{"vacuum_hours": 168, "physically_gone_at": "2026-02-07T02:00:00Z", "vacuumed": false, '
                    '"elsewhere": {"milvus_gc_hours": 3.0, "milvus_queue_hours": 72.0, "backup_days": 30}}'),
    ("erase-purge", '{"vacuum_hours": 0, "physically_gone_at": "2026-02-07T02:00:00Z", "vacuumed": true}'),
    ("erase-ledger", '{"vacuum_hours": 24, "physically_gone_at": "2026-02-01T02:00:00Z", "vacuumed": false}'),
    ("calibrate", '{"images": 18.2, "decoded": 66.1, "cut": 812.0, "embedded": 30.5, "dtype": "float32", "devices": '
                  '["cpu"], "weights": "random(seed=0), UNTRAINED", "executors": 1, "tasks": 2, "threads": 4, '
                  '"measured_s": 61.5, "cores": 2, "gpus": 0}'),
    ("erase-waits", '{"suspended": 1, "unknown": 0, "requests": "ab", "read": {"images": "12 1767225600000"}}'),
]  # fmt: skip


def kind_of(step: str) -> type[StepResult]:
    (kind,) = [kind for kind in KINDS.values() if kind.is_name(step)]
    return kind


def test_no_kind_is_without_its_record_here() -> None:
    assert {kind_of(step) for step, _ in WRITTEN} == set(KINDS.values())


@pytest.mark.parametrize(("step", "text"), WRITTEN)
def test_a_record_is_read_and_written_to_the_letter(step: str, text: str) -> None:
    kind = kind_of(step)
    found = kind.of_record(json.loads(text))
    assert json.dumps(found.record()) == text
    assert kind.of_record(found.record()) == found


def test_what_is_in_a_record_is_told_by_its_type() -> None:
    read = {step: kind_of(step).of_record(json.loads(text)) for step, text in WRITTEN}
    staged, verified, planned = read["stage"], read["verify"], read["plan"]
    assert isinstance(staged, Staged)
    assert (staged.files[0].file_no, staged.files[0].sha256, staged.machines.cores) == (0, "ab", 2)
    assert isinstance(verified, Verified)
    assert verified.is_proven
    assert (verified.proof.faults, verified.counts.statuses["refused"]) == ((), 1)
    assert verified.proof.distances is not None
    assert verified.proof.distances.nearest == (0, 50)
    assert isinstance(planned, Planned)
    assert planned.chunks == ((0, 3, 20), (4, 4, 7))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        # Before machines, weights and distances were recorded, and with something that is recorded no more.
        (Screened, '{"fingerprint": "ff"}'),
        (Planned, '{"chunks": [[0, 9]]}'),
        (Embedded, '{"images": 1, "faces": 1, "formerly": "told"}'),
        (Staged, '{"path": "/a", "files": [{"path": "/a/0", "rows": 1, "bytes": 1, "sha256": "x", "file_no": 0}], '
                 '"buckets": 4}'),
        (Imported, '{"collection": "faces_1"}'),
        (FileImported, '{"job_id": "1", "state": "started"}'),
        (FileImported, '{"job_id": "1", "state": "failed", "collection": "faces_1", "failed": 2}'),
        (Verified, '{"collection": "faces_1", ' + PROOF + COUNTS + "}"),
        (results.Promoted, '{"current": "faces_1"}'),
        (results.Dropping, '{"dropped": ["faces_1"]}'),
        (results.ErasedIndex, "{}"),
        (Purged, '{"vacuum_hours": 168, "physically_gone_at": "2026-02-07T02:00:00Z", "vacuumed": false}'),
    ],
)  # fmt: skip
def test_records_of_an_earlier_release_are_read(kind: type[StepResult], text: str) -> None:
    assert isinstance(kind.of_record(json.loads(text)), kind)


def test_a_record_without_what_a_step_goes_on_from_is_refused() -> None:
    with pytest.raises(TypeError):
        Staged.of_record({"path": "/a", "buckets": 4})


def test_names_are_of_one_kind_each() -> None:
    assert (Imported.name(), FileImported.name("7")) == ("import", "import/7")
    assert not Imported.is_name("import/7")
    assert not FileImported.is_name("import")
    names = [name for kind in KINDS.values() for name in (kind.STEP, *kind.FORMERLY)]
    assert len(set(names)) == len(names) == len(KINDS) + 4
    wrong: list[tuple[type[StepResult], str]] = [(Imported, "7"), (FileImported, "")]
    for kind, part in wrong:
        with pytest.raises(ValueError, match="no name of a step"):
            kind.name(part)


def test_a_step_of_an_earlier_release_is_known_by_its_present_name() -> None:
    for kind in KINDS.values():
        assert {present_name(name) for name in (kind.STEP, *kind.FORMERLY)} == {kind.STEP}
    assert present_name("withdraw-loaded") == results.RemovedFromCollection.name()
    assert (present_name("embed/0-3"), present_name("lease")) == ("embed/0-3", "lease")


def test_spark_reads_the_same_columns() -> None:
    assert Embedded.ddl() == (
        "images bigint, faces bigint, statuses map<string, bigint>, device struct<names: array<string>, network_s: "
        "double, elapsed_s: double>, cores bigint, gpus bigint"
    )
    assert Purged.ddl() == (
        "vacuum_hours double, physically_gone_at string, vacuumed boolean, elsewhere map<string, double>"
    )
    assert results.ErasedIndex.ddl() == "collections map<string, map<string, string>>"
    assert "files array<struct<path: string, rows: bigint" in Staged.ddl()
    assert "rows_found bigint" in Verified.ddl()
    assert "chunks array<array<bigint>>" in Planned.ddl()


def test_no_reader_asks_for_a_field_that_is_not_recorded() -> None:
    """Spark would say null to it, and a report would be silently wrong."""
    asked = []
    for path in JOBS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "column":
                kind, name = ast.unparse(node.func.value), node.args[0]
                if kind in KINDS and isinstance(name, ast.Constant):
                    asked.append((kind, name.value))
    assert len(asked) > 12
    columns = {name: {part.split()[0] for part in _fields(kind)} for name, kind in KINDS.items()}
    assert [(kind, name) for kind, name in asked if name not in columns[kind]] == []
    with pytest.raises(AttributeError, match="Staged records no 'paths', but path, apart"):
        Staged.column("paths")


def _fields(kind: type[StepResult]) -> list[str]:
    from jobs.runs.step_result import _columns

    return list(_columns(kind))


def test_no_reader_names_a_step_or_a_key_in_a_text_of_its_own() -> None:
    """But receipts, whose results are in a table of their own."""
    keys, steps = set[tuple[str, str]](), set[str]()
    for path in JOBS.rglob("*.py"):
        file = str(path.relative_to(JOBS))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"F.get_json_object", "F.from_json"}:
                of = ast.unparse(node.args[0])
                if of in {"'result'", "F.col('result')"} and "ddl()" not in ast.unparse(node.args[1]):
                    keys.add((file, ast.unparse(node.args[1])))
            elif isinstance(node, ast.Constant) and re.search(r"\bstep (=|IN|LIKE|NOT LIKE)", str(node.value)):
                steps.add(file)
    assert keys == {("erasure/receipts.py", "'$.outcome'"), ("erasure/closing.py", "_COUNTS")}
    assert steps == {"runs/step_result.py"}


# --- A step of a run -------------------------------------------------------------------------------------------------


class Told:
    """A console, metrics, a lease and a warehouse that only remember."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rows: list[tuple[str, str, str]] = []
        self.token = 3

    def step(self, name: str, state: str, **_: Any) -> None:
        self.lines.append(f"{name}: {state}")

    @contextmanager
    def watching(self, *_: Any) -> Iterator[None]:
        yield

    def createDataFrame(self, rows: list[Any], _: str) -> list[Any]:  # noqa: N802 - as Spark has it
        return rows

    def append(self, rows: list[Any], _: Any) -> None:
        self.rows += [(row[1], row[2], row[6]) for row in rows]

    def step_done(self, *_: Any) -> None:
        pass

    def write(self) -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def run(told: Told) -> Run:
    job: Any = SimpleNamespace(console=told, spark=told, warehouse=told, watching=told.watching)
    anything: Any = told
    return Run(job, "night-1", anything, None, anything)  # type: ignore[arg-type]


def test_a_step_is_on_record_when_its_with_ends(run: Run, told: Told) -> None:
    with run.step(IdCollisionsResolved) as step:
        assert run.result(IdCollisionsResolved) is None
        step.result = IdCollisionsResolved(faces=2)
    assert run.result(IdCollisionsResolved) == step.result == IdCollisionsResolved(faces=2)
    with run.step(IdCollisionsResolved) as step:
        step.result = IdCollisionsResolved(faces=3)
    assert told.rows == [
        ("resolve-id-collisions", "done", '{"faces": 2}'),
        ("resolve-id-collisions", "done", '{"faces": 3}'),
    ]
    assert told.lines == ["resolve-id-collisions: started", "resolve-id-collisions: done"] * 2


def test_a_step_that_fails_or_says_nothing_is_on_no_record(run: Run, told: Told) -> None:
    def fails() -> IdCollisionsResolved:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.once(IdCollisionsResolved, fails)
    with pytest.raises(RuntimeError, match="without a result"), run.step(IdCollisionsResolved):
        pass
    assert told.lines == ["resolve-id-collisions: started", "resolve-id-collisions: failed"] * 2
    assert told.rows == []


def test_once_is_once_until_it_is_forgotten(run: Run, told: Told) -> None:
    made: list[int] = []

    def make() -> Embedded:
        made.append(1)
        return Embedded(images=len(made), faces=0)

    for _ in range(2):
        assert run.once(Embedded, make, "0-9").images == 1
    run.record(Imported(collection="faces_1"))
    assert run.parts(Embedded) == {"0-9": Embedded(images=1, faces=0)}
    run.forget(Embedded)
    assert run.parts(Embedded) == {}
    assert run.result(Imported) == Imported(collection="faces_1")
    assert run.once(Embedded, make, "0-9").images == 2
    assert [row[:2] for row in told.rows] == [
        ("embed/0-9", "done"), ("import", "done"), ("embed/0-9", "forgotten"), ("embed/0-9", "done")
    ]  # fmt: skip
    assert told.lines[2] == "embed/0-9: already done"
