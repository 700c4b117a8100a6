"""The warehouse: every Delta read and write goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from pyspark.sql import functions as F

from jobs.errors import BadInput, FaceReindexError
from jobs.schemas import RUNS, TableSpec

if TYPE_CHECKING:
    from delta.tables import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

Result = TypeVar("Result")

#: Keys that one broadcast may hold; Spark stops at 8 GB.
LOOKED_UP: Final = 2_000_000

_VERSION_KEY = "face_reindex.schema_version"


class Warehouse:
    """Delta tables under a path (local, s3a://…) or in a catalog schema.

    Tables are created and migrated at first use; ``read_only`` refuses both (for `--dry-run` and `status`).
    """

    def __init__(self, spark: SparkSession, location: str, *, is_path: bool, read_only: bool = False) -> None:
        self.spark = spark
        # Delta takes no relative paths in SQL.
        relative = is_path and "://" not in location
        self.location = (str(Path(location).absolute()) if relative else location).rstrip("/")
        self.is_path = is_path
        self.read_only = read_only
        self._ready: set[str] = set()

    def path(self, *parts: str) -> str:
        """A path under the warehouse for files that are no table (staging). Needs a path warehouse."""
        if not self.is_path:
            raise BadInput(
                f"warehouse {self.location} is a catalog schema and holds no plain files.",
                hint="set staging.path to a folder or s3a:// prefix that Milvus can read.",
            )
        return "/".join((self.location, *parts))

    def _identifier(self, spec: TableSpec) -> str:
        return f"delta.`{self.location}/{spec.name}`" if self.is_path else f"{self.location}.{spec.name}"

    def exists(self, spec: TableSpec) -> bool:
        """Whether the table has been created."""
        from delta.tables import DeltaTable

        if self.is_path:
            return bool(DeltaTable.isDeltaTable(self.spark, f"{self.location}/{spec.name}"))
        return self.spark.catalog.tableExists(self._identifier(spec))

    def read(self, spec: TableSpec, version: int | None = None) -> DataFrame:
        """The table, or its state at ``version``. A table that was never written is empty."""
        if self.read_only and not self.exists(spec):
            return self.spark.createDataFrame([], spec.columns)
        self._prepare(spec)
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(f"{self.location}/{spec.name}") if self.is_path else reader.table(self._identifier(spec))

    def delta(self, spec: TableSpec) -> DeltaTable:
        """The table's `DeltaTable`, for merges and maintenance."""
        from delta.tables import DeltaTable

        self._prepare(spec)
        if self.is_path:
            return DeltaTable.forPath(self.spark, f"{self.location}/{spec.name}")
        return DeltaTable.forName(self.spark, self._identifier(spec))

    def version(self, spec: TableSpec) -> int:
        """The latest committed version; -1 where the table does not exist and may not be created."""
        if self.read_only and not self.exists(spec):
            return -1
        return int(self.delta(spec).history(1).select("version").first()[0])

    def versions(self, specs: Sequence[TableSpec]) -> dict[str, int]:
        """The latest committed version of each table, by name."""
        return dict(zip([spec.name for spec in specs], self.side_by_side(self.version, specs), strict=True))

    @property
    def identity(self) -> str:
        """What tells this warehouse from others: the id that Delta gave its table of runs; it survives a move."""
        if self.read_only and not self.exists(RUNS):
            return ""
        return str(self.delta(RUNS).detail().select("id").first()["id"])

    def append(
        self, frame: DataFrame, spec: TableSpec, *, transaction: str | None = None, transaction_version: int = 0
    ) -> None:
        """Append ``frame``; with a ``transaction``, once: Delta skips a second append of the same name.

        The transaction names run and chunk. One name for all chunks would make Delta skip chunks that finish out of
        order, for it skips every version not above the last (idempotent writes, Delta docs). Without a name the
        caller makes the append idempotent, by an anti-join with the table.
        """
        self._writable(spec)
        self._prepare(spec)
        columns = self.spark.createDataFrame([], spec.columns).schema
        writer = (
            frame.select([frame[f.name].cast(f.dataType).alias(f.name) for f in columns])
            .write.format("delta")
            .mode("append")
        )
        if transaction is not None:
            writer = writer.option("txnAppId", f"{spec.name}/{transaction}").option("txnVersion", transaction_version)
        if spec.partition_by:
            writer = writer.partitionBy(*spec.partition_by)
        if self.is_path:
            writer.save(f"{self.location}/{spec.name}")
        else:
            writer.saveAsTable(self._identifier(spec))

    def delete_matching(self, spec: TableSpec, keys: DataFrame, on: Sequence[str]) -> int:
        """Delete the rows whose ``on`` columns stand in ``keys`` (logically: VACUUM removes the files); how many."""
        self._writable(spec)
        condition = " AND ".join(f"t.{c} <=> k.{c}" for c in on)
        distinct = keys.select(*on).distinct()
        done = self.delta(spec).alias("t").merge(distinct.alias("k"), condition).whenMatchedDelete().execute()
        return int(done.first()["num_deleted_rows"])

    def maintain(self, spec: TableSpec, *, optimize: bool, vacuum_hours: int | None) -> None:
        """Compact small files and drop old ones, as the settings say."""
        self._writable(spec)
        if optimize:
            self.delta(spec).optimize().executeCompaction()
        if vacuum_hours is not None:
            self.vacuum([spec], vacuum_hours)

    def purge(self, specs: Sequence[TableSpec]) -> None:
        """Rewrite the files that hold deleted rows; the former files stay until `vacuum`."""

        def work(spec: TableSpec) -> None:
            self._writable(spec)
            self._prepare(spec)
            self.spark.sql(f"REORG TABLE {self._identifier(spec)} APPLY (PURGE)")

        self.side_by_side(work, specs)

    def vacuum(self, specs: Sequence[TableSpec], hours: float) -> None:
        """Remove files that no version of the last ``hours`` refers to."""
        for spec in specs:
            self._writable(spec)
        # Delta refuses less than a week, for the sake of writers that are not done. The lease leaves only one.
        check = "spark.databricks.delta.retentionDurationCheck.enabled"
        self.spark.conf.set(check, "false")
        try:
            self.side_by_side(lambda spec: self.delta(spec).vacuum(hours), specs)
        finally:
            self.spark.conf.unset(check)

    def side_by_side(self, work: Callable[[TableSpec], Result], specs: Sequence[TableSpec]) -> list[Result]:
        """Do the same to several tables at once: one that is small waits more than it works."""
        from pyspark import inheritable_thread_target

        # The jobs belong to the step that this thread is in. Each thread needs a copy of its own of what says so, for
        # Spark keeps there what query a thread is at, too.
        with ThreadPoolExecutor(len(specs)) as pool:
            futures = [pool.submit(inheritable_thread_target(self.spark)(work), spec) for spec in specs]
            return [future.result() for future in futures]

    def _writable(self, spec: TableSpec) -> None:
        if self.read_only:
            raise FaceReindexError(f"{spec.name}: a dry run may not write.")

    def _prepare(self, spec: TableSpec) -> None:
        if spec.name in self._ready or self.read_only:
            return
        if self.exists(spec):
            self._migrate(spec)
        else:
            self._create(spec)
        self._ready.add(spec.name)

    def _create(self, spec: TableSpec) -> None:
        if not self.is_path:
            self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {self.location}")
        properties = ", ".join(f"'{k}' = '{v}'" for k, v in sorted(spec.all_properties().items()))
        partitions = f" PARTITIONED BY ({', '.join(spec.partition_by)})" if spec.partition_by else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self._identifier(spec)} ({spec.columns}) USING delta{partitions} "
            f"TBLPROPERTIES ({properties})"
        )

    def _migrate(self, spec: TableSpec) -> None:
        rows = self.spark.sql(f"SHOW TBLPROPERTIES {self._identifier(spec)}").collect()
        found = {row["key"]: row["value"] for row in rows}.get(_VERSION_KEY)
        if found is None:
            raise BadInput(
                f"{self._identifier(spec)} was not made by Face Reindex (no {_VERSION_KEY} property).",
                hint="give `warehouse` a place of its own, and bring your table in with `ingest --source`.",
            )
        if int(found) > spec.version:
            raise BadInput(
                f"{self._identifier(spec)} has schema version {found}; this release knows {spec.version}.",
                hint="run the release that wrote it, or a newer one.",
            )
        for version in range(int(found), spec.version):
            for statement in spec.migrations[version - 1]:
                self.spark.sql(statement.format(table=self._identifier(spec)))
            self.spark.sql(
                f"ALTER TABLE {self._identifier(spec)} SET TBLPROPERTIES ('{_VERSION_KEY}' = '{version + 1}')"
            )


@contextmanager
def reading_images(spark: SparkSession) -> Iterator[None]:
    """Image bytes are read while this lasts: 16 rows to a column batch of Spark's Parquet reader, not 4,096.

    It copies the values of a batch into one growing array: with images that is hundreds of megabytes a task, and the
    time for it. 960 JPEGs of 0.3 MB reached Python in 1.0 s instead of 1.7 (two cores).
    """
    key = "spark.sql.parquet.columnarReaderBatchSize"
    before = spark.conf.get(key, "4096") or "4096"
    spark.conf.set(key, 16)
    try:
        yield
    finally:
        spark.conf.set(key, before)


def looked_up(keys: DataFrame, count: int | None = None) -> DataFrame:
    """``keys`` as a side of a join: each task gets all of them, unless they are too many for that.

    ``count``: at most how many there are, where it is known; they are counted else.
    """
    return F.broadcast(keys) if (keys.count() if count is None else count) <= LOOKED_UP else keys


def looked_up_in_parts(keys: DataFrame, column: str) -> list[DataFrame]:
    """Distinct ``keys`` in parts that each task can be given whole, so that a join never shuffles the other side."""
    distinct = keys.select(column).distinct()
    parts = max(1, -(-distinct.count() // LOOKED_UP))
    if parts == 1:
        return [F.broadcast(distinct)]
    part = F.pmod(F.xxhash64(column), F.lit(parts))
    return [F.broadcast(distinct.where(part == number)) for number in range(parts)]


def materialise(frame: DataFrame) -> DataFrame:
    """Compute ``frame`` once and cut its lineage.

    `cache` would not do: Spark empties a cache when a Delta table that it was computed from is written, and a
    worklist must not change under the loop that works it off. Set `spark.checkpoint.dir` where executors come and
    go; without it the rows live on the executors' disks, and losing one fails the job (resume it by its run id).
    """
    from pyspark import StorageLevel

    if frame.sparkSession.sparkContext.getCheckpointDir():
        return frame.checkpoint()
    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)
