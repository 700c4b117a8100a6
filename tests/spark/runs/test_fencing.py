"""Guarantee 11: who has lost the lease commits nothing, whatever it had checked before it fell asleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs import schemas
from jobs.embedding import chunks
from jobs.errors import FaceReindexError, LeaseLost, NotProvenError
from jobs.index.milvus.embedded import EmbeddedIndex
from jobs.index.protocol import IndexSpec
from jobs.runs.aliases import recorded, settle_alias, switching
from jobs.runs.lease import Lease
from jobs.runs.record import Run, open_run
from jobs.runs.results import Screened, Staged
from jobs.runs.staging_paths import staging_path, unrecorded_staging
from jobs.schemas import (
    ALL_TABLES,
    AUDIT_EVENTS,
    BASIS_LINKS,
    EMBEDDINGS,
    IMAGE_STATUS,
    IMAGES,
    RUN_STEPS,
    RUNS,
    TOMBSTONES,
)
from jobs.steps import load
from jobs.steps.sync import _insert_missing
from jobs.tables.files import remove_tree
from jobs.tables.store import UNFENCED, Warehouse
from tests.milvus.rows import INFO
from tests.spark.helpers import NOW, job_for, rows, settings_for, warehouse_for
from udfs.arrays import EMBEDDING_DIM
from udfs.spark import RESULT_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = pytest.mark.spark

FENCED = [spec for spec in ALL_TABLES if spec not in UNFENCED]


class Runs:
    """Starts of one run, of which each takes the lease from the one before, as a run does that is started again."""

    def __init__(self, spark: SparkSession, folder: Path, *overrides: str) -> None:
        self.spark, self.settings = spark, settings_for(folder, "milvus.uri=http://nowhere:1", *overrides)
        self._open = ExitStack()

    def start(self) -> Run:
        return self._open.enter_context(open_run(job_for(self.spark, self.settings, "night"), "embed"))

    def take_over(self) -> Run:
        """The run, asleep, and a later start of it."""
        return self.start()


@pytest.fixture(scope="module")
def runs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(spark, tmp_path_factory.mktemp("fencing"))


@pytest.fixture(scope="module")
def asleep(runs: Runs) -> Run:
    """A run that has lost its lease in its sleep, after it had written something."""
    run = runs.start()
    run.warehouse.append(links(run, "a", "b"), BASIS_LINKS)
    return run


@pytest.fixture(scope="module")
def holder(runs: Runs, asleep: Run) -> Run:
    """The run that holds the lease now, and has written nothing but its fence."""
    return runs.take_over()


def links(run: Run, *ids: str) -> DataFrame:
    return run.job.spark.createDataFrame([(i, f"r-{i}", NOW, None) for i in ids], BASIS_LINKS.columns)


def there(run: Run) -> set[tuple[str, ...]]:
    return rows(run.warehouse.read(BASIS_LINKS), "image_id", "record_id")


def just_looked(run: Run, *, for_s: float = 0.0) -> None:
    """As if it had found its lease in order a moment ago, and for ``for_s`` seconds to come."""
    run.lease._confirmed = time.monotonic() + for_s


WRITES: dict[str, Callable[[Run], object]] = {
    "append": lambda run: run.warehouse.append(links(run, "c"), BASIS_LINKS),
    "delete": lambda run: run.warehouse.delete_matching(BASIS_LINKS, links(run, "a"), ["image_id"]),
    "update": lambda run: run.warehouse.update_matching(
        BASIS_LINKS, links(run, "b"), ["image_id"], {"record_id": "'other'"}
    ),
    "purge": lambda run: run.warehouse.purge([BASIS_LINKS]),
    "vacuum": lambda run: run.warehouse.vacuum([BASIS_LINKS], 0),
    "compact": lambda run: run.warehouse.maintain(BASIS_LINKS, optimize=True, vacuum_hours=None),
}


def test_guarantee_11_who_lost_the_lease_writes_no_table(asleep: Run, holder: Run) -> None:
    versions = holder.warehouse.versions(FENCED)

    def late(spec: schemas.TableSpec) -> None:
        asleep.warehouse.append(asleep.warehouse.read(spec).limit(0), spec)

    just_looked(asleep, for_s=3600)
    asleep.warehouse.side_by_side(late, FENCED)
    assert holder.warehouse.versions(FENCED) == versions


@pytest.mark.parametrize("way", WRITES)
def test_guarantee_11_who_lost_the_lease_is_told(asleep: Run, holder: Run, way: str) -> None:
    asleep.lease._confirmed = float("-inf")
    with pytest.raises(LeaseLost, match=r"a later start of it took over.*--run-id night"):
        WRITES[way](asleep)
    assert there(holder) == {("a", "r-a"), ("b", "r-b")}


def test_guarantee_11_staged_files_of_who_lost_the_lease_do_not_stay(
    asleep: Run, holder: Run, index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(holder.warehouse.path("_staging"))

    def staged(run: Run, *_: object) -> Staged:
        Path(staging_path(run)).mkdir(parents=True)
        Path(staging_path(run), "part.parquet").write_bytes(b"a vector")
        return Staged(path=staging_path(run), files=(), buckets=4, rows=0)

    monkeypatch.setattr(load, "stage_faces", staged)
    monkeypatch.setattr(load, "permitted_faces", lambda *_: None)
    monkeypatch.setattr(load, "gate_step", lambda *_: None)
    load._stage(holder, index, "f", anew=True)
    asleep.lease._confirmed = float("-inf")
    with pytest.raises(LeaseLost):
        load._stage(asleep, index, "f", anew=True)
    assert [path.name for path in (base / "night").iterdir()] == [str(holder.lease.token)]
    # What it writes even later lies where the next erasure knows it for nobody's.
    late = staged(asleep).path
    assert unrecorded_staging(holder) == [late]
    remove_tree(holder.job.spark, late)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedIndex]:
    """Two empty collections that can be searched."""
    with EmbeddedIndex(tmp_path_factory.mktemp("index") / "faces.db") as index:
        for name in ("faces_old", "faces_new"):
            index.create(name, dim=EMBEDDING_DIM, shards=1, properties=INFO)
            index.build_index(name, IndexSpec("FLAT"), timeout=60)
            index.load(name, timeout=60)
        yield index


@pytest.fixture
def live(index: EmbeddedIndex) -> EmbeddedIndex:
    """The older of the two is live."""
    index.switch_alias("faces", "faces_old")
    return index


def test_guarantee_11_an_alias_that_was_switched_without_the_lease_is_put_right(
    holder: Run, live: EmbeddedIndex
) -> None:
    index = live
    with switching(holder, index, "faces_new"):
        index.switch_alias("faces", "faces_new")
    settle_alias(holder, index)
    assert index.alias_target("faces") == "faces_new"
    # By one that never came to look whether it still had the lease.
    index.switch_alias("faces", "faces_old")
    settle_alias(holder, index)
    assert index.alias_target("faces") == "faces_new"
    # A switch that was cut off stands as it was found, and cannot go on.
    with pytest.raises(KeyboardInterrupt), switching(holder, index, "faces_old"):
        raise KeyboardInterrupt
    settle_alias(holder, index)
    index.switch_alias("faces", "faces_old")
    settle_alias(holder, index)
    assert index.alias_target("faces") == "faces_new"
    last = recorded(holder.warehouse, "faces")
    assert last is not None
    assert (last.collection, last.open, last.token) == ("faces_new", False, holder.lease.token)
    with pytest.raises(NotProvenError), switching(holder, index, "faces_old"):
        raise NotProvenError("too slow.")
    settle_alias(holder, index)
    assert index.alias_target("faces") == "faces_new"


def test_guarantee_11_faces_added_without_the_lease_are_taken_out_again(
    asleep: Run, holder: Run, index: EmbeddedIndex
) -> None:
    face = [holder.job.spark.range(1).selectExpr(
        "7L face_id", f"array_repeat(CAST(0.5 AS FLOAT), {EMBEDDING_DIM}) embedding", "0L bucket", "1L purposes",
        "0L expires_at",
    ).first()]  # fmt: skip
    with pytest.raises(LeaseLost):
        _insert_missing(asleep, index, "faces_old", face)
    assert index.count("faces_old") == 0
    assert _insert_missing(holder, index, "faces_old", face) == index.count("faces_old") == 1


def test_guarantee_11_a_chunk_is_committed_once_by_whoever_goes_on(
    holder: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its faces and their status; meanwhile one more image of the chunk was permitted."""
    warehouse = holder.warehouse
    listed = [(i, f"d{i}", 0) for i in "xyz"]
    images = holder.job.spark.createDataFrame(listed, "image_id string, input_digest string, part int")

    def results(_: Warehouse, work: DataFrame, *__: object) -> DataFrame:
        face = (0, None, None, 1.0, None, None)
        done = [(r["image_id"], "embedded", None, 9, 9, [face], None, "cpu", 0.0, 0.0) for r in work.collect()]
        return holder.job.spark.createDataFrame(done, RESULT_SCHEMA)

    monkeypatch.setattr(chunks, "_results", results)

    class Killed(Exception):
        pass

    real = warehouse.append

    def embed(work: DataFrame, killed: bool) -> None:
        def append(frame: DataFrame, spec: schemas.TableSpec) -> None:
            if killed and spec is IMAGE_STATUS:
                raise Killed
            real(frame, spec)

        monkeypatch.setattr(warehouse, "append", append)
        spec = type("Spec", (), {"fingerprint": "f" * 64})()
        chunks.embed_chunk(
            warehouse,
            chunks.Worklist(work),
            chunks.Chunk(0, 0),
            spec,
            holder.settings,
            run_id="night",
            now=NOW,
            recompute=False,
        )

    with pytest.raises(Killed):
        embed(images.where("image_id < 'z'"), killed=True)
    embed(images, killed=False)
    for spec in (EMBEDDINGS, IMAGE_STATUS):
        found = warehouse.read(spec).where("run_id = 'night'").select("image_id").collect()
        assert sorted(row["image_id"] for row in found) == ["x", "y", "z"]


def test_guarantee_11_what_began_before_the_lease_was_lost_is_not_committed(
    spark: SparkSession, tmp_path: Path, live: EmbeddedIndex
) -> None:
    """Writes conflict, and the alias is put back; in a catalog's warehouse, where it is the same."""
    runs = Runs(spark, tmp_path, "warehouse=tests_fencing")
    run = runs.start()
    run.warehouse.append(links(run, "a"), BASIS_LINKS)

    def append(run: Run, slowly: Callable[[DataFrame], DataFrame]) -> None:
        run.warehouse.append(slowly(links(run, "b")), BASIS_LINKS)

    def delete(run: Run, slowly: Callable[[DataFrame], DataFrame]) -> None:
        run.warehouse.delete_matching(BASIS_LINKS, slowly(links(run, "a")), ["image_id"])

    for way in (append, delete):
        run, asleep = overtaken(runs, run, way, tmp_path / way.__name__), run
        assert there(run) == {("a", "r-a")}
        assert asleep.lease.token < run.lease.token
    later = []

    def switch() -> None:
        with switching(run, live, "faces_new"):
            later.append(runs.take_over())
            live.switch_alias("faces", "faces_new")

    with pytest.raises(LeaseLost):
        switch()
    assert live.alias_target("faces") == "faces_old"


def overtaken(runs: Runs, run: Run, way: Callable[..., None], place: Path) -> Run:
    """The run loses its lease while a task of what it writes is under way; returns the one that has it then."""
    begun, go, faults = place.with_suffix(".begun"), place.with_suffix(".go"), []

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            begun.touch()
            while not go.exists():
                time.sleep(0.05)
            yield batch

    def work() -> None:
        # One task: the other core has the rest to do.
        try:
            way(run, lambda frame: frame.coalesce(1).mapInArrow(wait, frame.schema))
        except BaseException as fault:
            faults.append(fault)

    writer = threading.Thread(target=work)
    writer.start()
    while writer.is_alive() and not begun.exists():
        writer.join(0.05)
    holder = runs.take_over()
    go.touch()
    writer.join()
    assert [type(fault) for fault in faults] == [LeaseLost], faults
    return holder


def test_guarantee_11_a_run_that_lost_its_lease_ends_so_and_leaves_the_record_of_runs_alone(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)

    def sleeps() -> None:
        with open_run(job_for(spark, settings, "night"), "embed") as run:
            later.acquire()
            just_looked(run)
            run.record(Screened())

    later = Lease(warehouse, "night", 600)
    with pytest.raises(LeaseLost):
        sleeps()
    # Somebody cut in: what it was writing then may still be committed.
    later.release(clean=False)
    assert rows(warehouse.read(RUNS), "state") == {("running",)}
    assert warehouse.read(RUN_STEPS).isEmpty()
    kinds = [row["kind"] for row in warehouse.read(AUDIT_EVENTS).orderBy("seq").select("kind").collect()]
    assert kinds == ["run-running", "run-fenced-off"]
    versions = warehouse.versions([IMAGES])
    for _ in range(2):
        with open_run(job_for(spark, settings), "embed"):
            pass
    # The first of them paid for a fence. It gave its lease back and has no write to come, so the second did not.
    assert warehouse.version(IMAGES) == versions["images"] + 1


def test_tokens_go_on_where_tables_of_runs_were_removed(spark: SparkSession, tmp_path: Path) -> None:
    """As docs/operations.md lets people do with damaged ones: tables that are left would skip tokens that have been."""
    settings = settings_for(tmp_path)
    with open_run(job_for(spark, settings), "embed") as run:
        run.warehouse.append(links(run, "a"), BASIS_LINKS)
    for removed in (("leases",), ("leases", "run_steps")):
        for name in removed:
            remove_tree(spark, f"{settings.warehouse}/{name}")
        with open_run(job_for(spark, settings), "embed") as run:
            run.warehouse.append(links(run, "b"), BASIS_LINKS)
            assert run.warehouse.delete_matching(BASIS_LINKS, links(run, "b"), ["image_id"]) == 1
    # One that came back from a copy.
    run.warehouse.append(
        spark.createDataFrame([("r", "s", "done", NOW, NOW, 0.0, "{}", 2**31)], RUN_STEPS.columns), RUN_STEPS
    )
    with open_run(job_for(spark, settings), "embed") as run:
        assert run.lease.token == 2**31 + 1
        run.warehouse.append(links(run, "c"), BASIS_LINKS)
    assert there(run) == {("a", "r-a"), ("c", "r-c")}


def test_guarantee_11_jobs_write_nothing_without_the_lease_but_what_only_forbids(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path), lease_required=True)
    with pytest.raises(FaceReindexError, match="without the lease"):
        warehouse.append(spark.createDataFrame([], IMAGES.columns), IMAGES)
    with pytest.raises(FaceReindexError, match="without the lease"):
        warehouse.delete_matching(IMAGES, spark.createDataFrame([], IMAGES.columns), ["image_id"])
    warehouse.append(spark.createDataFrame([], TOMBSTONES.columns), TOMBSTONES)
