"""Tables, lease, run record, staging: what the main job rests on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.embedding.chunks import Chunk, Worklist, chunk_input, plan_chunks
from jobs.embedding.faces import face_id, resolve_id_collisions
from jobs.errors import (
    BadInput,
    DependencyUnavailable,
    LeaseHeld,
    LeaseLost,
    MixedFingerprints,
    NotProvenError,
    SettingsError,
)
from jobs.index.ground_truth import MERGING_TASKS, recall_sample
from jobs.index.milvus.embedded import EmbeddedIndex
from jobs.index.milvus.vectors import decode, encode, unpacked
from jobs.index.protocol import IndexSpec, VectorType
from jobs.index.staging import Manifest, bucket_count, digests, stage
from jobs.index.verification import exact_neighbours
from jobs.runs.history import run_state
from jobs.runs.lease import Lease, last_act
from jobs.runs.record import open_run
from jobs.runs.results import Dropped, Dropping, FileImported, IdCollisionsResolved, Maintained, RemovedFromTable
from jobs.schemas import ALL_TABLES, EMBEDDINGS, ERASURE_ITEMS, IMAGES, LEASES, RUN_STEPS, RUNS, TableSpec
from jobs.steps import load
from jobs.steps.load import import_staged
from jobs.steps.maintain import maintain
from jobs.tables import store
from jobs.tables.store import materialise
from tests.milvus.rows import INFO, make_keys, make_table, make_vectors, stage_files
from tests.spark.helpers import NOW, job_for, rows, settings_for, warehouse_for
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.spark


def test_tables_carry_a_version_and_are_migrated(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    first = TableSpec("things", "id bigint", "id")
    warehouse.append(spark.range(2).toDF("id"), first)
    second = TableSpec(
        "things", "id bigint, name string", "id", migrations=(("ALTER TABLE {table} ADD COLUMN name string",),)
    )
    again = warehouse_for(spark, settings_for(tmp_path))
    assert rows(again.read(second), "id", "name") == {(0, None), (1, None)}
    with pytest.raises(BadInput, match="this release knows 1"):
        warehouse_for(spark, settings_for(tmp_path)).read(first)


def test_images_by_address_are_spread_over_tasks_and_stored_bytes_stay(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    # One file each; the last row is of version 1, which did not say how it is stored.
    addresses = [(0, f"u{n}", None, f"/u{n}", f"c{n}", 1, "b1", NOW, True, None, None) for n in range(40)]
    stored = [(0, f"s{n}", b"x", None, f"c{n}", 1, "b1", NOW, [False, None][n // 4], None, None) for n in range(5)]
    for images in (addresses, stored):
        warehouse.append(
            spark.createDataFrame(images, spark.createDataFrame([], IMAGES.columns).schema).coalesce(1), IMAGES
        )
    ids: list[tuple[Any, ...]] = [(row[1], row[4], []) for row in addresses + stored]
    work = spark.createDataFrame(ids, "image_id string, content_sha256 string, covered array<string>")
    found = chunk_input(warehouse, work, Chunk(0, 0), 5).withColumn("task", F.spark_partition_id()).collect()
    assert {(row["image_id"], row["content"], row["uri"]) for row in found} == {
        (row[1], row[2], row[3]) for row in addresses + stored
    }
    assert len(found) == 45
    assert len({row["task"] for row in found if row["uri"]}) >= 7  # of nine, for 45 images in fives
    assert len({row["task"] for row in found if not row["uri"]}) == 1


def test_a_foreign_table_is_not_touched(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    spark.range(1).write.format("delta").save(f"{settings.warehouse}/leases")
    with pytest.raises(BadInput, match="not made by Face Reindex"):
        warehouse_for(spark, settings).read(LEASES)


def test_an_append_with_a_transaction_happens_once(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    spec = TableSpec("once", "id bigint", "id")
    for name in ("r1/0-3", "r1/0-3", "r1/4-7", "r1/0-3"):
        warehouse.append(spark.range(1).toDF("id"), spec, transaction=name)
    assert warehouse.read(spec).count() == 2


def test_maintenance_compacts_and_drops_what_is_old(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)
    spec = TableSpec("kept", "id bigint", "id")
    for number in range(3):
        warehouse.append(spark.range(number, number + 1).toDF("id"), spec)

    def files() -> int:
        return len(list(Path(settings.warehouse, "kept").glob("*.parquet")))

    assert files() >= 3
    warehouse.maintain(spec, optimize=True, vacuum_hours=None)
    assert len(warehouse.read(spec).inputFiles()) == 1
    warehouse.maintain(spec, optimize=False, vacuum_hours=0)
    assert files() == 1
    assert rows(warehouse.read(spec), "id") == {(0,), (1,), (2,)}


def test_guarantee_11_a_request_that_is_being_written_outlives_the_end_of_another(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Who asks for an erasure needs no lease, so a VACUUM may meet a file whose commit is yet to come."""
    warehouse, go = warehouse_for(spark, settings_for(tmp_path)), tmp_path / "go"
    place = Path(warehouse.location, ERASURE_ITEMS.name)

    def files() -> list[Path]:
        return list(place.glob("*.parquet"))

    def slowly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            numbers = batch.column("id").to_pylist()
            while any(numbers) and not go.exists():
                time.sleep(0.05)
            texts = [pa.array([f"{word} {number}" for number in numbers]) for word in ("er", "subject", "asked", "i")]
            yield pa.RecordBatch.from_arrays(texts, names=["request_id", "kind", "value", "image_id"])

    gone = spark.createDataFrame([("er", "subject", "gone", None)], ERASURE_ITEMS.columns)
    warehouse.append(gone, ERASURE_ITEMS)
    warehouse.delete_matching(ERASURE_ITEMS, gone, ["request_id"])
    warehouse.purge([ERASURE_ITEMS])
    before = files()
    asked = spark.range(0, 2, 1, 2).mapInArrow(slowly, ERASURE_ITEMS.columns)
    asking = threading.Thread(target=lambda: warehouse.append(asked, ERASURE_ITEMS))
    asking.start()
    try:
        # The first of its two files is there.
        while asking.is_alive() and not any(f.stat().st_size for f in set(files()) - set(before)):
            asking.join(0.05)
        warehouse.vacuum([ERASURE_ITEMS], 0)
    finally:
        go.touch()
        asking.join()
    assert rows(warehouse.read(ERASURE_ITEMS), "value") == {("asked 0",), ("asked 1",)}
    assert [f for f in files() if "gone" in pq.read_table(f).column("value").to_pylist()] == []


def test_a_run_maintains_what_it_is_told_to(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "tables.optimize=true")
    with open_run(job_for(spark, settings, "m1"), "reindex") as run:
        maintain(run)
        assert run.result(Maintained) == Maintained(tables=9)
    with open_run(job_for(spark, settings_for(tmp_path), "m2"), "reindex") as run:
        maintain(run)
        assert run.result(Maintained) is None


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    """An index with a collection of run f1 that is empty."""
    with EmbeddedIndex(tmp_path / "index.db") as index:
        index.create("faces_f1", dim=EMBEDDING_DIM, shards=1, properties=INFO)
        yield index


def rows_of(index: EmbeddedIndex, name: str) -> int:
    index.build_index(name, IndexSpec("FLAT"), timeout=60)
    index.load(name, timeout=60)
    return index.count(name)


def test_another_models_collection_is_not_added_to(spark: SparkSession, tmp_path: Path, index: EmbeddedIndex) -> None:
    staged = Manifest(str(tmp_path), (), 4)
    with open_run(job_for(spark, settings_for(tmp_path), "f1"), "load") as run, pytest.raises(MixedFingerprints):
        import_staged(run, index, "faces_f1", staged, "0" * 64)
    assert rows_of(index, "faces_f1") == 0


def test_nothing_is_imported_beside_rows_of_no_import_on_record(
    spark: SparkSession, tmp_path: Path, index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server would keep every row twice: what readers see is left alone, anything else is built anew."""
    monkeypatch.setattr(load, "_load_files", lambda *_: None)
    staged, model = Manifest(str(tmp_path), (), 4), INFO.model_fingerprint

    def fill() -> None:
        index.insert("faces_f1", make_table(make_keys(3), make_vectors(3, dim=EMBEDDING_DIM)))

    fill()
    index.switch_alias("faces", "faces_f1")
    with open_run(job_for(spark, settings_for(tmp_path), "f1"), "load") as run:
        with pytest.raises(NotProvenError, match="faces_f1 of run f1 is live, and no import into it is on record"):
            import_staged(run, index, "faces_f1", staged, model)
        assert run.result(Dropping) is None
        index.drop_alias("faces")
        import_staged(run, index, "faces_f1", staged, model)
        assert rows_of(index, "faces_f1") == 0
        assert run.result(Dropped) == Dropped(dropped=("faces_f1",))
        # An import that is on record is gone on with.
        run.record_parts({"0": FileImported(job_id="1", state="started", collection="faces_f1")})
        fill()
        import_staged(run, index, "faces_f1", staged, model)
        assert rows_of(index, "faces_f1") == 3


def test_a_catalog_schema_is_a_warehouse_too(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "warehouse=tests_faces")
    warehouse = warehouse_for(spark, settings)
    spec = TableSpec("catalogued", "id bigint, part int", "id", partition_by=("part",))
    warehouse.append(spark.range(3).selectExpr("id", "0 AS part"), spec)
    assert spark.table("tests_faces.catalogued").count() == 3
    assert warehouse.version(spec) == 1
    with pytest.raises(BadInput, match=r"staging\.path"):
        warehouse.path("_staging")


def test_no_statistics_on_what_could_name_a_person() -> None:
    personal = {"image_id", "uri", "content", "pii_principal_id", "record_id", "embedding", "box", "basis_record_ids"}
    assert [s.name for s in ALL_TABLES if personal & set(s.stats_columns.split(","))] == []


def test_the_second_run_is_refused_and_a_dead_one_replaced(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    first, second = (Lease(warehouse, name, 60, clock=lambda: now[0]) for name in ("one", "two"))
    assert first.acquire() == 1
    with pytest.raises(LeaseHeld, match="Run one is writing"):
        second.acquire()
    assert Lease(warehouse, "one", 60, clock=lambda: now[0]).acquire() == 2
    with pytest.raises(LeaseLost):
        first.check()
    now[0] += timedelta(seconds=61)
    assert second.acquire() == 3
    second.check()
    second.release()
    assert Lease(warehouse, "three", 60, clock=lambda: now[0]).acquire() == 4


def test_a_token_is_won_by_one(spark: SparkSession, tmp_path: Path) -> None:
    """Two runs that both saw token 0 both write token 1: one row stays, and both read the same winner."""
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    one, two = Lease(warehouse, "one", 60), Lease(warehouse, "two", 60)
    one._write(1, "acquire", 0)
    two._write(1, "acquire", 0)
    winner = last_act(warehouse)
    assert winner is not None
    assert winner.run_id in {"one", "two"}
    assert warehouse.read(LEASES).where("token = 1").count() == 1


def test_a_run_is_recorded_resumed_and_never_mixed(spark: SparkSession, tmp_path: Path) -> None:
    calls: list[str] = []

    def work() -> IdCollisionsResolved:
        calls.append("x")
        return IdCollisionsResolved(faces=1)

    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)

    def fail() -> None:
        with open_run(job_for(spark, settings, "r1"), "reindex") as run:
            run.once(IdCollisionsResolved, work)
            raise NotProvenError("not enough.")

    with pytest.raises(NotProvenError):
        fail()
    found = run_state(warehouse, "r1", datetime.now(UTC))
    assert (found.state, found.exit_code, found.job, found.message) == ("failed", 4, "reindex", "not enough.")
    # By the name that an earlier release gave it.
    former = ("r1", "withdraw", "done", NOW, NOW, 0.0, '{"faces": 4}', 1)
    warehouse.append(spark.createDataFrame([former], RUN_STEPS.columns), RUN_STEPS)
    with open_run(job_for(spark, settings, "r1"), "reindex") as run:
        assert run.result(RemovedFromTable) == RemovedFromTable(faces=4)
        # Its lease runs out where it is not heard of for long enough.
        assert run_state(warehouse, "r1", datetime.now(UTC)).state == "running"
        assert run_state(warehouse, "r1", datetime.now(UTC) + timedelta(hours=1)).state == "silent"
        assert run.once(IdCollisionsResolved, work) == IdCollisionsResolved(faces=1)
        run.forget(IdCollisionsResolved)
        run.once(IdCollisionsResolved, work)
    assert len(calls) == 2
    states = warehouse.read(RUNS).orderBy("recorded_at").select("state", "exit_code", "started_at").collect()
    assert [(r["state"], r["exit_code"]) for r in states] == [
        ("running", None),
        ("failed", 4),
        ("running", None),
        ("done", 0),
    ]
    assert len({r["started_at"] for r in states}) == 1
    assert warehouse.read(RUN_STEPS).count() == 4
    with (
        pytest.raises(SettingsError, match="other settings"),
        open_run(job_for(spark, settings_for(tmp_path, "detection.max_faces=3"), "r1"), "reindex"),
    ):
        pass


def test_chunks_cover_all_parts_once(spark: SparkSession) -> None:
    work = spark.range(100).selectExpr("cast(id % 10 AS int) AS part")
    assert plan_chunks(Worklist(work), 25) == [Chunk(0, 2, 30), Chunk(3, 5, 30), Chunk(6, 8, 30), Chunk(9, 9, 10)]
    assert plan_chunks(Worklist(work.limit(0)), 25) == []


def test_a_chunk_reads_the_work_of_its_group_and_not_the_whole(spark: SparkSession) -> None:
    rows = spark.range(0, 900, 1, 40).selectExpr("cast(id % 90 AS int) AS part", "concat('i', id) AS image_id")
    work = Worklist(materialise(rows))
    chunks = plan_chunks(work, 100)
    assert len(chunks) == 9
    context, tasks, seen = spark.sparkContext, [], set[int]()
    for number, chunk in enumerate(work.in_turn(chunks)):
        context.setJobGroup(f"chunk-{number}", "")
        if number == 4:
            # As if executors had gone, with what they kept.
            spark.catalog.clearCache()
        with work.of(chunk) as mine:
            assert mine.count() == mine.select("image_id").distinct().count() == 100
            parts = {row["part"] for row in mine.collect()}
        assert parts == set(range(chunk.first, chunk.last + 1))
        tasks.append(tasks_of(spark, f"chunk-{number}", seen))
    context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
    # The first of three looks through the whole, and the others through a hundred rows' partition or two.
    assert all(40 <= first < 50 for first in tasks[::3])
    assert max(tasks[1], tasks[2], tasks[7], tasks[8]) < 10


def tasks_of(spark: SparkSession, group: str, seen: set[int]) -> int:
    """Tasks that a group of jobs has run in stages that were not ``seen``, which are now."""
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    tracker = spark.sparkContext.statusTracker()
    jobs = [job for number in tracker.getJobIdsForGroup(group) if (job := tracker.getJobInfo(number))]
    stages = {stage for job in jobs for stage in job.stageIds} - seen
    seen |= stages
    return sum(info.numCompletedTasks for stage in stages if (info := tracker.getStageInfo(stage)))


def unit_vectors(n: int, seed: int = 0) -> list[list[float]]:
    vectors = np.random.default_rng(seed).normal(size=(n, EMBEDDING_DIM))
    unit: list[list[float]] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32).tolist()
    return unit


def faces(spark: SparkSession, vectors: list[list[float]], ids: list[int] | None = None) -> DataFrame:
    ids = ids or list(range(len(vectors)))
    data = [(i, v, NOW) for i, v in zip(ids, vectors, strict=True)]
    return spark.createDataFrame(data, "face_id bigint, embedding array<float>, valid_until timestamp")


def test_staging_writes_what_milvus_takes_and_hashes_it(spark: SparkSession, tmp_path: Path) -> None:
    staged = stage(
        faces(spark, unit_vectors(50)), str(tmp_path / "s"), purpose_flags=3, files_for=lambda rows: -(-rows // 20)
    )
    assert staged.rows == 50
    assert 1 < len(staged.files) <= 3
    assert staged.buckets == bucket_count(50) == 4
    table = pq.read_table(staged.files[0].path)
    assert str(table.schema.field("embedding").type).startswith("list<")
    assert table.column_names == ["face_id", "embedding", "bucket", "purposes", "expires_at"]
    assert set(table.column("expires_at").to_pylist()) == {int(NOW.timestamp())}
    import hashlib

    assert staged.files[0].sha256 == hashlib.sha256(Path(staged.files[0].path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda v: [float("nan"), *v[1:]], "NOT_FINITE"),
        (lambda v: [float("inf"), *v[1:]], "NOT_FINITE"),
        (lambda v: [x * 2 for x in v], "NOT_UNIT_LENGTH"),
        (lambda v: v[:-1], "WRONG_DIMENSION"),
        (lambda _: [], "WRONG_DIMENSION"),
    ],
)
def test_staging_refuses_what_milvus_would_accept(
    spark: SparkSession, tmp_path: Path, spoil: Callable[[list[float]], list[float]], fault: str
) -> None:
    vectors = unit_vectors(5)
    vectors[2] = spoil(vectors[2])
    with pytest.raises(NotProvenError, match=f"1 of 5 faces are unusable .{fault}"):
        stage(faces(spark, vectors), str(tmp_path / "s"), purpose_flags=1, files_for=lambda rows: -(-rows // 10))


@pytest.mark.parametrize("key", [-(2**63), 2**63 - 1])
def test_staging_refuses_a_key_that_milvus_cannot_name(spark: SparkSession, tmp_path: Path, key: int) -> None:
    with pytest.raises(NotProvenError, match="KEY_OUT_OF_RANGE"):
        stage(
            faces(spark, unit_vectors(2), [1, key]),
            str(tmp_path / "s"),
            purpose_flags=1,
            files_for=lambda rows: -(-rows // 10),
        )


def test_staging_refuses_a_key_twice(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(NotProvenError, match="1 keys stand twice"):
        stage(
            faces(spark, unit_vectors(3), [1, 2, 2]),
            str(tmp_path / "s"),
            purpose_flags=1,
            files_for=lambda rows: -(-rows // 10),
        )


@pytest.mark.parametrize(("rows", "files"), [(60, 20), (60, 1), (4, 6)])
def test_the_sample_knows_its_exact_neighbours(spark: SparkSession, tmp_path: Path, rows: int, files: int) -> None:
    """Among ties, of fewer rows than k, of tasks without a row: as brute force over all rows at once."""
    keys, some = make_keys(rows), make_vectors(rows // 2, EMBEDDING_DIM)
    vectors = np.concatenate([some, some])
    paths = [file.path for file in stage_files(tmp_path / "s", keys, vectors, files)]
    removed = spark.createDataFrame([(int(keys[0]),)], "face_id bigint")
    context, name = spark.sparkContext, f"sample-{rows}-{files}"
    context.setJobGroup(name, name)
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4m")  # a file a task
    try:
        sample = recall_sample(spark.read.parquet(*paths), removed, size=8, k=5)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
        context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
    left = spark.createDataFrame([(int(key),) for key in keys[1:]], "face_id bigint")
    drawn = left.orderBy(F.xxhash64("face_id", F.lit(7)), "face_id").limit(8).collect()
    assert sample.ids.tolist() == [row["face_id"] for row in drawn]
    place = {int(key): row for row, key in enumerate(keys)}
    np.testing.assert_array_equal(sample.vectors, vectors[[place[int(key)] for key in sample.ids]])
    exact = exact_neighbours(sample.vectors, [(keys[1:], vectors[1:])], 5)
    np.testing.assert_array_equal(sample.exact_ids, exact.ids)
    np.testing.assert_array_equal(sample.exact_scores, exact.scores)

    tracker = context.statusTracker()
    stages = {
        stage: info.numTasks
        for job in tracker.getJobIdsForGroup(name)
        if (found := tracker.getJobInfo(job))
        for stage in found.stageIds
        if (info := tracker.getStageInfo(stage))
    }
    assert stages[max(stages)] == MERGING_TASKS
    # All files are opened for their keys, and for all vectors; not for the sample's.
    assert files == 1 or sum(tasks == files for tasks in stages.values()) == 2


@pytest.mark.parametrize("vector_type", ["float16", "bfloat16"])
def test_vectors_of_16_bits_are_staged_as_bytes_and_the_sample_is_of_what_is_stored(
    spark: SparkSession, tmp_path: Path, vector_type: VectorType
) -> None:
    vectors = unit_vectors(40)
    staged = stage(
        faces(spark, vectors),
        str(tmp_path / "s"),
        purpose_flags=1,
        files_for=lambda rows: -(-rows // 15),
        vector_type=vector_type,
    )
    stored = decode(b"".join(encode(np.array(vectors, np.float32), vector_type)), vector_type, EMBEDDING_DIM)
    for file in staged.files:
        table = pq.read_table(file.path)
        assert table.schema.field("embedding").type == pa.binary()
        found = unpacked(table.column("embedding").combine_chunks(), vector_type, EMBEDDING_DIM)
        assert np.array_equal(found, stored[table.column("face_id").to_numpy()])
    removed = spark.createDataFrame([(3,)], "face_id bigint")
    sample = recall_sample(staged.read(spark), removed, size=8, k=5, vector_type=vector_type)
    assert sample.vector_type == vector_type
    assert np.array_equal(sample.vectors, stored[sample.ids])
    left = np.delete(np.arange(40), 3)
    exact = exact_neighbours(sample.vectors, [(left, stored[left])], 5)
    assert sample.exact_ids.tolist() == exact.ids.tolist()
    np.testing.assert_allclose(sample.exact_scores, exact.scores, atol=1e-9)


def test_colliding_ids_get_a_salt_once_and_for_all(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    frame = (
        spark.range(40)
        .selectExpr("concat('i', id) AS image_id", "'d' AS input_digest", "0 AS face_index", "'f' AS model_fingerprint")
        .withColumn("face_id", face_id(bits=4))
    )
    some = frame.select("*", *[F.lit(None).alias(c) for c in EMPTY])
    warehouse.append(some.where("face_id < 4"), EMBEDDINGS)
    assert warehouse.read(EMBEDDINGS).groupBy("face_id").count().where("count > 1").count() > 0
    moved = resolve_id_collisions(warehouse, "f")
    assert moved > 0
    ids = rows(warehouse.read(EMBEDDINGS), "image_id", "face_id")
    assert len({i for _, i in ids}) == len(ids)
    assert resolve_id_collisions(warehouse, "f") == 0
    assert rows(warehouse.read(EMBEDDINGS), "image_id", "face_id") == ids


EMPTY = ("box", "landmarks", "confidence", "embedding", "basis_record_ids", "run_id")


def test_staged_files_are_hashed_by_executors_as_they_are_now(spark: SparkSession, tmp_path: Path) -> None:
    staged = stage(
        faces(spark, unit_vectors(40)), str(tmp_path / "s"), purpose_flags=1, files_for=lambda rows: -(-rows // 15)
    )
    digest = digests(spark, staged.files, window=2)
    assert [digest(file.path) for file in staged.files] == [file.sha256 for file in staged.files]
    first, second, _ = (Path(file.path) for file in staged.files)
    first.write_bytes(first.read_bytes()[:-1])
    assert digest(str(first)) != staged.files[0].sha256
    second.unlink()
    with pytest.raises(DependencyUnavailable, match="cannot be read"):
        digests(spark, staged.files)(str(second))


def test_keys_beyond_one_broadcast_are_looked_up_in_parts(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = spark.createDataFrame([(f"k{n % 7}",) for n in range(20)], "key string")
    assert len(store.looked_up_in_parts(keys, "key")) == 1
    monkeypatch.setattr(store, "LOOKED_UP", 3)
    parts = store.looked_up_in_parts(keys, "key")
    assert len(parts) == 3
    found = [row["key"] for part in parts for row in part.collect()]
    assert sorted(found) == [f"k{n}" for n in range(7)]
    for few, whole in ((keys.limit(3), True), (keys.limit(4), False)):
        plan = keys.join(store.looked_up(few), "key")._jdf.queryExecution().optimizedPlan().toString()
        assert ("broadcast" in plan) is whole
