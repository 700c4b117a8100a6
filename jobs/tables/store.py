"""The warehouse: every Delta read and write goes through here.

What the holder of the lease writes carries the lease's token in the very transaction that writes it, as Delta's own
(txnAppId, txnVersion): Delta skips a write whose version is not above the table's, and lets one conflict that began
before another of that name was committed. So a later holder, whose first act is a commit of its greater token to
every table (`fence_off`), shuts an earlier one out of all of them, whatever that one has checked before.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pyspark.sql import functions as F

from jobs.errors import BadInput, FaceReindexError, NotProvenError
from jobs.schemas import (
    ALL_TABLES,
    AUDIT_EVENTS,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    ERASURE_STEPS,
    LEASES,
    PSEUDONYM_KEYS,
    RUNS,
    SOURCE_BATCHES,
    TOMBSTONES,
    TableSpec,
)
from jobs.tables.control import CONTROL_TABLES, DeltaRsTable, Query
from jobs.tables.files import listed, modified_at

if TYPE_CHECKING:
    from delta.tables import DeltaTable
    from pyspark.sql import Column, DataFrame, Row, SparkSession

Result = TypeVar("Result")

#: Keys that one broadcast may hold; Spark stops at 8 GB.
LOOKED_UP: Final = 2_000_000

#: Never fenced, for their rows settle by themselves who was first: each has its number as its transaction's version.
UNFENCED: Final = (LEASES, AUDIT_EVENTS)
#: May also be written by who does not hold the lease: an erasure is asked for, and a batch revoked, while a reindex
#: runs for hours. Such rows are only added, and only ever forbid; those of keys let persons be found.
OPEN_TO_ALL: Final = (*UNFENCED, ERASURE_REQUESTS, ERASURE_ITEMS, TOMBSTONES, SOURCE_BATCHES, PSEUDONYM_KEYS)

_VERSION_KEY = "face_reindex.schema_version"
_IDENTITY: Final = "face_reindex.warehouse"
_RESTORED: Final = "if the table `leases` was restored or removed, start again: the next run mends its tokens."
_FENCE: Final = "face-reindex/lease"
# A transaction's version, of 63 bits: the token, and the number of the write under it.
_TOKEN_SHIFT: Final = 31
# Until a fence stands, the writer that it is for may still commit, which makes the fence itself conflict.
_FENCE_ATTEMPTS: Final = 20
# Longer than an append of a few rows may take from its file to its commit.
_UNCOMMITTED_H: Final = 1.0
# A version's file in the log of a table: of a commit, or of a checkpoint.
_VERSION_FILE: Final = re.compile(r"/_delta_log/(\d{20})\.(?:json|checkpoint\.)", re.ASCII)
# How old an answer may be that tells a skipped append; it delays no more than the end of a run that writes nothing.
_ANSWER_S: Final = 10.0


class Fence(Protocol):
    """The lease, as far as writes need it."""

    token: int

    def check(self, max_age_s: float = 0.0) -> None:
        """Raise LeaseLost if a later token exists."""


class Warehouse:
    """Delta tables under a path (local, s3a://…) or in a catalog schema.

    Tables are created and migrated at first use; ``read_only`` refuses both (for `--dry-run` and `status`).
    ``lease_required`` refuses every write without the lease, but to tables that are ``OPEN_TO_ALL``.

    ``spark``: a session, or what opens it once somebody asks for it.
    ``fence`` is the lease while a run holds it (`open_run` sets it): every write then carries its token.
    """

    def __init__(
        self,
        spark: SparkSession | Callable[[], SparkSession],
        location: str,
        *,
        is_path: bool,
        read_only: bool = False,
        lease_required: bool = False,
    ) -> None:
        self._spark = spark
        # Delta takes no relative paths in SQL.
        relative = is_path and "://" not in location
        self.location = (str(Path(location).absolute()) if relative else location).rstrip("/")
        self.is_path = is_path
        self.read_only = read_only
        self.lease_required = lease_required
        self.fence: Fence | None = None
        self._identity = ""
        self._ready: set[str] = set()
        self._numbers = itertools.count(1)
        # One fenced write at a time in each table, in the order of their numbers.
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._sessions: dict[str, SparkSession] = {}

    @property
    def spark(self) -> SparkSession:
        """The session that tables are read and written by."""
        return self._spark() if callable(self._spark) else self._spark

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
        control = self._control(spec)
        if control is not None:
            return control.exists()
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

    def rows(
        self,
        spec: TableSpec,
        columns: str,
        *,
        where: str = "",
        order_by: str = "",
        limit: int = 0,
        **values: str | int,
    ) -> list[dict[str, Any]]:
        """A few rows of a control table, asked for in the SQL that Spark and DataFusion share. Timestamps are in UTC.

        >>> warehouse.rows(RUNS, "job, state", where="run_id = {of}", order_by="recorded_at", of="n1")  # doctest: +SKIP
        """
        query = Query(columns, where, order_by, limit, values)
        if self.read_only and not self.exists(spec):
            return []
        control = self._control(spec)
        if control is not None:
            self._prepare(spec)
            return control.select(query)
        found = self.spark.sql(query.of("{rows}"), rows=self.read(spec))
        rows: list[dict[str, Any]] = found.toArrow().to_pylist()
        return rows

    def _control(self, spec: TableSpec) -> DeltaRsTable | None:
        """A control table where delta-rs reaches it: in a local folder. Elsewhere it is Spark's as all others."""
        if not self.is_path or spec not in CONTROL_TABLES:
            return None
        local = self.location.removeprefix("file://")
        return None if "://" in local else DeltaRsTable(f"{local}/{spec.name}")

    def delta(self, spec: TableSpec, session: SparkSession | None = None) -> DeltaTable:
        """The table's `DeltaTable`, to look at; its rows are changed by `delete_matching` and `update_matching`."""
        from delta.tables import DeltaTable

        self._prepare(spec)
        if self.is_path:
            return DeltaTable.forPath(session or self.spark, f"{self.location}/{spec.name}")
        return DeltaTable.forName(session or self.spark, self._identifier(spec))

    def version(self, spec: TableSpec) -> int:
        """The latest committed version; -1 where the table does not exist and may not be created."""
        if self.read_only and not self.exists(spec):
            return -1
        if not self.is_path:
            return int(self.delta(spec).history(1).select("version").first()[0])
        self._prepare(spec)
        control = self._control(spec)
        if control is not None:
            return control.version()
        # By the names in its log, as the protocol has them. Asked for its history, Delta runs four jobs of Spark.
        paths = listed(self.spark, f"{self.location}/{spec.name}/_delta_log")
        return max(map(int, _VERSION_FILE.findall(paths)))

    def versions(self, specs: Sequence[TableSpec]) -> dict[str, int]:
        """The latest committed version of each table, by name."""
        return dict(zip([spec.name for spec in specs], self.side_by_side(self.version, specs), strict=True))

    def last_commits(self, specs: Sequence[TableSpec]) -> dict[str, str]:
        """What tells the latest commit of each table from every other, by name: its version, and its time (ms).

        The version alone would not: a table that was restored from a copy comes to it once more.
        """
        return dict(zip([spec.name for spec in specs], self.side_by_side(self._last_commit, specs), strict=True))

    def _last_commit(self, spec: TableSpec) -> str:
        if not self.is_path:
            last = self.delta(spec).history(1).select("version", F.unix_millis("timestamp").alias("at")).first()
            return f"{last['version']} {last['at']}"
        version = self.version(spec)
        at = modified_at(self.spark, f"{self.location}/{spec.name}/_delta_log/{version:020d}.json")
        return f"{version} {at}"

    @property
    def identity(self) -> str:
        """What tells this warehouse from others, moved or not; collections carry it.

        The id that Delta gave the table of runs first, kept as a property of a table that nobody may remove.
        """
        if self._identity:
            return self._identity
        if not (self.read_only and not self.exists(ERASURE_STEPS)):
            self._prepare(ERASURE_STEPS)
            self._identity = self._properties(ERASURE_STEPS).get(_IDENTITY, "")
        if self._identity or (self.read_only and not self.exists(RUNS)):
            return self._identity
        first = str(self.delta(RUNS).detail().select("id").first()["id"])
        # Under the lease: a change of the table would make an append at the same time fail.
        if self.fence is not None:
            self._set_property(ERASURE_STEPS, _IDENTITY, first)
            self._identity = first
        return first

    def append(
        self,
        rows: DataFrame | Sequence[tuple[Any, ...]],
        spec: TableSpec,
        *,
        transaction: str | None = None,
        transaction_version: int = 0,
    ) -> None:
        """Append ``rows``. The caller makes it idempotent, by an anti-join with the table.

        With a ``transaction``, which only tables without a fence may have, it is done once: Delta skips every version
        of that name that is not above the last.

        Raises:
            LeaseLost: a later run holds the lease; nothing was appended. (A skip is told by an answer that is seconds
                old: `open_run` asks anew before it lets a run end as done.)
        """
        self._writable(spec)
        self._prepare(spec)
        if transaction is not None:
            self._append(rows, spec, (f"{spec.name}/{transaction}", transaction_version))
        elif self.fence is None or spec in UNFENCED:
            self._append(rows, spec, None)
        else:
            with self._fenced(spec) as version:
                self._append(rows, spec, (_FENCE, version))
            self.fence.check(max_age_s=_ANSWER_S)

    def _append(
        self, rows: DataFrame | Sequence[tuple[Any, ...]], spec: TableSpec, transaction: tuple[str, int] | None
    ) -> None:
        control = self._control(spec)
        if control is not None:
            control.append(rows if isinstance(rows, Sequence) else rows.toArrow(), transaction)
            return
        frame = self.spark.createDataFrame(rows, spec.columns) if isinstance(rows, Sequence) else rows
        columns = self.spark.createDataFrame([], spec.columns).schema
        writer = (
            frame.select([frame[f.name].cast(f.dataType).alias(f.name) for f in columns])
            .write.format("delta")
            .mode("append")
        )
        if transaction is not None:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        if spec.partition_by:
            writer = writer.partitionBy(*spec.partition_by)
        if self.is_path:
            writer.save(f"{self.location}/{spec.name}")
        else:
            writer.saveAsTable(self._identifier(spec))

    def delete_matching(self, spec: TableSpec, keys: DataFrame, on: Sequence[str]) -> int:
        """Delete the rows whose ``on`` columns stand in ``keys`` (logically: VACUUM removes the files); how many."""
        condition = " AND ".join(f"t.{c} <=> k.{c}" for c in on)
        distinct = keys.select(*on).distinct()
        return int(self._merge(spec, distinct, condition, None)["num_deleted_rows"])

    def update_matching(self, spec: TableSpec, source: DataFrame, on: Sequence[str], new: Mapping[str, str]) -> int:
        """Set the columns ``new`` of the rows whose ``on`` columns stand in ``source`` (`k` in expressions)."""
        condition = " AND ".join(f"t.{c} = k.{c}" for c in on)
        return int(self._merge(spec, source, condition, dict(new))["num_updated_rows"])

    def _merge(self, spec: TableSpec, source: DataFrame, condition: str, new: dict[str, str] | None) -> Row:
        """Delete what matches, or update it.

        Raises:
            LeaseLost: a later run holds the lease; nothing was changed.
        """
        self._writable(spec)
        self._prepare(spec)

        def merged(session: SparkSession | None) -> Row | None:
            target = self.delta(spec, session).alias("t").merge(source.alias("k"), condition)
            matched = target.whenMatchedDelete() if new is None else target.whenMatchedUpdate(set=new)
            found: Row | None = matched.execute().first()
            return found

        if self.fence is None:
            done = merged(None)
        else:
            with self._fenced(spec) as version:
                done = merged(self._session(spec, version))
        if done is None:
            # Delta's answer for what it skips.
            if self.fence is not None:
                self.fence.check()
            raise NotProvenError(f"{spec.name}: Delta took a write for one that was done before.", hint=_RESTORED)
        return done

    @contextmanager
    def _fenced(self, spec: TableSpec) -> Iterator[int]:
        """The version for the next write of a table under the fence."""
        from delta.exceptions import ConcurrentTransactionException

        fence = self.fence
        assert fence is not None  # noqa: S101 - asked by the callers
        with self._locks[spec.name]:
            try:
                yield (fence.token << _TOKEN_SHIFT) + next(self._numbers)
            except ConcurrentTransactionException:
                fence.check()
                raise

    def _session(self, spec: TableSpec, version: int) -> SparkSession:
        """A session whose merges carry ``version``: Delta takes it from the session, and tables are written at once."""
        session = self._sessions.get(spec.name)
        if session is None:
            session = self._sessions[spec.name] = self.spark.newSession()
            zone = "spark.sql.session.timeZone"
            session.conf.set(zone, str(self.spark.conf.get(zone)))
            session.conf.set("spark.databricks.delta.write.txnAppId", _FENCE)
        session.conf.set("spark.databricks.delta.write.txnVersion", version)
        return session

    def fence_off(self, token: int) -> None:
        """Commit ``token`` to every table, so that no holder of a smaller one can write any of them from now on.

        Tables that are not there yet are created, for the other would else create them.
        """
        import tenacity
        from delta.exceptions import ConcurrentTransactionException

        again = tenacity.retry_if_exception_type(ConcurrentTransactionException)

        def work(spec: TableSpec) -> None:
            self._prepare(spec)
            tried = tenacity.Retrying(stop=tenacity.stop_after_attempt(_FENCE_ATTEMPTS), retry=again, reraise=True)
            tried(self._append, [], spec, (_FENCE, token << _TOKEN_SHIFT))

        self.side_by_side(work, [spec for spec in ALL_TABLES if spec not in UNFENCED])

    def maintain(self, spec: TableSpec, *, optimize: bool, vacuum_hours: int | None) -> None:
        """Compact small files and drop old ones, as the settings say."""
        self._writable(spec)
        self._hold()
        if optimize:
            control = self._control(spec)
            if control is not None:
                control.compact()
            else:
                self.delta(spec).optimize().executeCompaction()
        if vacuum_hours is not None:
            self.vacuum([spec], vacuum_hours)

    def purge(self, specs: Sequence[TableSpec]) -> None:
        """Rewrite the files that hold deleted rows; the former files stay until `vacuum`.

        Delta fences no rewriting. It changes no row, and fails where another's commit has touched its files.
        """
        self._hold()

        def work(spec: TableSpec) -> None:
            self._writable(spec)
            self._prepare(spec)
            self.spark.sql(f"REORG TABLE {self._identifier(spec)} APPLY (PURGE)")

        self.side_by_side(work, specs)

    def vacuum(self, specs: Sequence[TableSpec], hours: float) -> None:
        """Remove files that no version of the last ``hours`` refers to.

        Delta fences no VACUUM: with few hours it could take files that a later holder is about to commit, so the
        lease is looked at directly before (docs/governance.md says what remains). Of tables that others may write at
        this moment only what a commit has removed goes so soon; what is in no commit goes by its age.
        """
        for spec in specs:
            self._writable(spec)
        self._hold()

        def work(spec: TableSpec) -> None:
            control = self._control(spec)
            if control is not None:
                return control.vacuum(hours, uncommitted=hours >= _UNCOMMITTED_H)
            shared = spec in OPEN_TO_ALL and hours < _UNCOMMITTED_H
            # In this order: LITE needs the whole of the log, or the word of the last VACUUM on where to begin.
            self.delta(spec).vacuum(max(hours, _UNCOMMITTED_H) if shared else hours)
            if shared:
                self.spark.sql(f"VACUUM {self._identifier(spec)} LITE RETAIN {hours} HOURS")
            return None

        # Delta refuses less than a week, for the sake of writers that are not done. The lease leaves only one.
        check = "spark.databricks.delta.retentionDurationCheck.enabled"
        self.spark.conf.set(check, "false")
        try:
            self.side_by_side(work, specs)
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

    def _hold(self) -> None:
        if self.fence is not None:
            self.fence.check()

    def _writable(self, spec: TableSpec) -> None:
        if self.read_only:
            raise FaceReindexError(f"{spec.name}: a dry run may not write.")
        if self.lease_required and self.fence is None and spec not in OPEN_TO_ALL:
            raise FaceReindexError(f"{spec.name}: written without the lease.", hint="report this; it is a defect.")

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
        found = self._properties(spec).get(_VERSION_KEY)
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
            self._set_property(spec, _VERSION_KEY, str(version + 1))

    def has_property(self, spec: TableSpec, key: str) -> bool:
        """Whether a table that is there has a property of this name."""
        return key in self._properties(spec)

    def _properties(self, spec: TableSpec) -> dict[str, str]:
        rows = self.spark.sql(f"SHOW TBLPROPERTIES {self._identifier(spec)}").collect()
        return {row["key"]: row["value"] for row in rows}

    def _set_property(self, spec: TableSpec, key: str, value: str) -> None:
        self.spark.sql(f"ALTER TABLE {self._identifier(spec)} SET TBLPROPERTIES ('{key}' = '{value}')")


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


def utc_text(at: Column | str) -> Column:
    """A time as a text in UTC (2026-01-31T12:00:00Z): so, or as seconds since 1970, times leave Spark.

    Collected as they are they come without a zone, in that of the driver's machine, and are printed as another hour.
    """
    # The session's zone is UTC (jobs/session.py), whatever the machine's is.
    return F.date_format(at, "yyyy-MM-dd'T'HH:mm:ss'Z'")


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
