"""A tiny warehouse on which the jobs themselves are run, in this process, as a command line would run them.

Everything is real (Spark, Delta, milvus-lite, the jobs from their command line to their exit code) but:

* the network, which reads who a picture shows (pictures.py);
* the clock of the gate, which can be set forward, and the clock of leases, by which a lease can have run out;
* with ``quick``, the place of the control tables, which decide nothing about pictures: no history restores or loses
  them, and Spark reads them from memory; a frame that is computed once (`materialise`) is kept in the driver, not in
  blocks on a disk;
* processes: all jobs run in this one. So the embedded index is opened once and shared, as a server would be, and a kill
  is an exception after which the dead job can write nothing any more, not even that it has ended.

A job's *points* are what it writes: each append, deletion, purge, index call and switch, in order. Before each of them
something else can happen (`before`): the job is killed there, or another job runs from beginning to end before it goes
on, with the lease run out (a zombie) or not (one that meets it).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml
from deltalake import DeltaTable

from jobs.tables.control import CONTROL_TABLES, DeltaRsTable, Query
from tests.histories import pictures

if TYPE_CHECKING:
    import click
    from pyspark.sql import SparkSession

#: Of Spark, for tables of a hundred rows: one partition, no checksums, and no plan written out that nobody reads.
FAST = {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.maxPlanStringLength": "100",
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.debug.maxToStringFields": "1",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",
    "spark.databricks.delta.merge.materializeSource": "none",
}
PURPOSE, OTHER_PURPOSE = "face-reindex:DuplicateDetection", "face-reindex:Something"
LEASE_S = 900.0
_CONF = Path(__file__).parents[2] / "conf"
_WRITES = {
    "append": "append", "delete_matching": "delete", "update_matching": "update", "purge": "purge", "vacuum": "vacuum",
}  # fmt: skip
_INDEX_WRITES = ("create", "insert", "delete", "drop", "switch_alias")


class Killed(BaseException):
    """The job was killed here, as SIGKILL would."""


@dataclass
class Answer:
    """How a job ended. ``code``: its exit code; -9: killed."""

    job: str
    code: int
    said: dict[str, Any]
    seconds: float
    points: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        return str(self.said.get("message", ""))


@dataclass
class _Process:
    """One job that runs: what it has written, and what is to happen before which of its points."""

    points: list[str] = field(default_factory=list)
    before: Callable[[str, int], None] | None = None
    dead: bool = False
    warehouses: list[Any] = field(default_factory=list)
    killed_at: str | None = None

    @classmethod
    def stopped(cls, at: str | int | None, then: Callable[[], None] | None = None) -> _Process:
        """One to which ``then`` happens before its point ``at`` (name, or number), once; None: the kill."""
        process = cls()
        met: list[str] = []

        def before(point: str, number: int) -> None:
            if not met and at in (point, number):
                met.append(point)
                if then is None:
                    process.dead = True
                    raise Killed
                then()

        process.before = before if at is not None else None
        process.killed_at = at if then is None and isinstance(at, str) else None
        return process


def _in_driver(frame: Any) -> Any:
    """The rows, computed once: what `materialise` does, for a frame that is small."""
    return frame.sparkSession.createDataFrame(frame.toArrow(), frame.schema)


class Ledgers:
    """Control tables beside the warehouse: nothing here restores or loses them, and Spark reads them from memory."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        self._schemas: dict[str, Any] = {}

    def install(self, warehouse_class: Any, patch: Callable[[Any, str, Any], None]) -> None:
        """Let the warehouse find these tables here."""
        read = warehouse_class.read

        @functools.wraps(read)
        def read_here(warehouse: Any, spec: Any, version: int | None = None) -> Any:
            return self.read(spec) if spec in CONTROL_TABLES else read(warehouse, spec, version)

        patch(warehouse_class, "read", read_here)
        patch(warehouse_class, "_control", lambda _, spec: self.table(spec) if spec in CONTROL_TABLES else None)
        patch(warehouse_class, "identity", property(lambda warehouse: f"identity of {warehouse.location}"))

    def read(self, spec: Any) -> Any:
        """The rows, as a frame that needs no file."""
        rows = pa.Table.from_pylist(self.table(spec).select(Query("*")), schema=self._schema(spec)[1])
        return self.spark.createDataFrame(rows, self._schema(spec)[0])

    def table(self, spec: Any) -> DeltaRsTable:
        """The table, made where it is not there."""
        place = self.folder / spec.name
        if not place.exists():
            DeltaTable.create(place, self._schema(spec)[1])
        return DeltaRsTable(str(place))

    def _schema(self, spec: Any) -> tuple[Any, pa.Schema]:
        if spec.name not in self._schemas:
            from pyspark.sql.pandas.types import to_arrow_schema

            schema = self.spark.createDataFrame([], spec.columns).schema
            self._schemas[spec.name] = schema, to_arrow_schema(schema, timezone="UTC")
        return self._schemas[spec.name]


class World:
    """The warehouse, its settings and keys, and the jobs on it. `install` first, `remove` at the end."""

    def __init__(self, spark: SparkSession, folder: Path, *, quick: bool = True) -> None:
        self.spark, self.folder = spark, folder
        self.ledgers = Ledgers(spark, folder / "ledgers") if quick else None
        self.keys = {"hmac": ["the first key of more than 32 letters"], "tombstones": []}
        self.offset = timedelta(0)
        self.lease_skew = timedelta(0)
        self.index: Any = None
        self._index_place: Path | None = None
        self.seconds: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        # Nothing is to be made or migrated of tables that are elsewhere.
        self._ready = {spec.name for spec in CONTROL_TABLES} if quick else set[str]()
        self._processes: list[_Process] = []
        self._undo: list[Callable[[], None]] = []
        self._asked: list[tuple[str, str]] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.laws = yaml.safe_load((_CONF / "jurisdictions.yaml").read_text(encoding="utf-8"))
        self.know_law("", known=True)
        self.config = folder / "settings.yaml"
        self.config.write_text(yaml.safe_dump({
            "warehouse": str(folder / "warehouse"),
            "governance": {
                "purposes": [PURPOSE], "allowed_purposes": [PURPOSE, OTHER_PURPOSE],
                "jurisdictions": str(folder / "jurisdictions.yaml"),
            },
            "milvus": {"uri": str(folder / "index.db"), "keep_collections": 3},
            "verify": {"recall_sample": 5},
            "erasure": {"milvus_gc_hours": 0},
            "lease": {"ttl_s": LEASE_S},
            "executor": {"partition_images": 100_000},
        }))  # fmt: skip

    def know_law(self, jurisdiction: str, *, known: bool) -> None:
        """Let the settings have the rules of a jurisdiction, or not. The file's place stays, and so do all settings."""
        rules = [rule for rule in self.laws["rules"] if known or jurisdiction not in rule["jurisdictions"]]
        text = yaml.safe_dump({**self.laws, "rules": rules})
        (self.folder / "jurisdictions.yaml").write_text(text, encoding="utf-8")

    # --- what is not real ---

    def install(self) -> None:
        """Put the seams in place."""
        import jobs.runs.lease
        import jobs.runs.record
        import jobs.steps.embed
        from jobs.index.milvus.embedded import EmbeddedIndex
        from jobs.tables.store import Warehouse
        from udfs import spark as udfs_spark
        from udfs.spark import EmbedSpec

        for key, value in FAST.items():
            before = self.spark.conf.get(key, None)
            self._undo.append(
                functools.partial(self.spark.conf.unset, key)
                if before is None
                else functools.partial(self.spark.conf.set, key, before)
            )
            self.spark.conf.set(key, value)
        for name in ("ingest", "embed", "load", "verify", "promote", "reindex", "sync", "expire", "erase", "rollback"):
            importlib.import_module(f"jobs.{name}")

        def prepare_model(run: Any) -> Any:
            run.facts.update(model_fingerprint=pictures.FINGERPRINT, weights="random (UNTRAINED)")
            return EmbedSpec("none", pictures.FINGERPRINT)

        import jobs.embedding.chunks
        import jobs.erasure.requests
        import jobs.tables.files
        import jobs.tables.store

        self._everywhere(jobs.steps.embed.prepare_model, prepare_model)
        self._everywhere(udfs_spark.embed_arrow, pictures.embed_arrow)
        self._set_default(jobs.runs.record.JobContext.__init__, jobs.runs.record.utc_now, self.now)
        self._set_default(jobs.runs.lease.Lease.__init__, jobs.runs.lease._utc_now, self._lease_now)
        self._patch(EmbeddedIndex, "open", classmethod(lambda _, settings: self._shared_index(settings)))
        self._everywhere(jobs.erasure.requests.request_all, self._heard(jobs.erasure.requests.request_all))
        # Kept, not cached: Spark, which all jobs share here, empties a cache when a table that it was read from is
        # written, and so what a sleeping job has computed; in a process of its own it would keep it.
        computed = jobs.embedding.chunks._results
        self._patch(jobs.embedding.chunks, "_results", lambda *args: _in_driver(computed(*args)))
        if self.ledgers is not None:
            self.ledgers.install(Warehouse, self._patch)
            self._everywhere(jobs.tables.store.materialise, _in_driver)
        its_session = Warehouse._session

        def quick_session(warehouse: Any, spec: Any, version: int) -> Any:
            session = its_session(warehouse, spec, version)
            for key, value in FAST.items():
                session.conf.set(key, value)
            return session

        self._patch(Warehouse, "_session", quick_session)
        for name, label in _WRITES.items():
            self._patch(Warehouse, name, self._point_of(getattr(Warehouse, name), label))
        for name in _INDEX_WRITES:
            self._patch(EmbeddedIndex, name, self._plain_point(getattr(EmbeddedIndex, name), f"index {name}"))
        self._everywhere(jobs.tables.files.write_text, self._plain_point(jobs.tables.files.write_text, "write text"))
        made = Warehouse.__init__

        def with_known_tables(warehouse: Any, *args: Any, **kwargs: Any) -> None:
            made(warehouse, *args, **kwargs)
            # Each job would look at every table once, to see whether it has to be made or migrated.
            warehouse._ready = self._ready
            if self._processes:
                self._processes[-1].warehouses.append(warehouse)

        self._patch(Warehouse, "__init__", with_known_tables)

    def remove(self) -> None:
        """Take the seams away again."""
        self.close_index()
        while self._undo:
            self._undo.pop()()

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        before = owner.__dict__[name] if name in vars(owner) else None
        inherited = before is None
        self._undo.append(lambda: delattr(owner, name) if inherited else setattr(owner, name, before))
        setattr(owner, name, value)

    def _everywhere(self, original: Any, substitute: Any) -> None:
        """Replace a function in every module of jobs/ that has imported it."""
        for module in [m for n, m in sys.modules.items() if n.startswith("jobs")]:
            for name, value in list(vars(module).items()):
                if value is original:
                    self._patch(module, name, substitute)

    def _set_default(self, function: Any, original: Any, substitute: Any) -> None:
        before = function.__defaults__, function.__kwdefaults__
        exchanged = tuple(substitute if value is original else value for value in before[0] or ())
        named = {name: substitute if value is original else value for name, value in (before[1] or {}).items()}
        assert (exchanged, named) != (before[0] or (), before[1] or {}), "the clock is given in another way now"

        def undo() -> None:
            function.__defaults__, function.__kwdefaults__ = before

        self._undo.append(undo)
        function.__defaults__, function.__kwdefaults__ = exchanged or None, named or None

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[tuple[str, str]]]:
        """What jobs find due meanwhile, or here again, as (kind, value)."""
        self._asked = []
        try:
            yield self._asked
        finally:
            self._asked = None

    def _heard(self, request_all: Any) -> Any:
        @functools.wraps(request_all)
        def heard(warehouse: Any, due: Any, *args: Any, **kwargs: Any) -> int:
            count: int = request_all(warehouse, due, *args, **kwargs)
            if count and self._asked is not None:
                self._asked += [(row["kind"], row["value"]) for row in due.select("kind", "value").collect()]
            return count

        return heard

    def now(self) -> datetime:
        """The time, as the gate is told it."""
        return datetime.now(UTC) + self.offset

    def _lease_now(self) -> datetime:
        return datetime.now(UTC) + self.lease_skew

    def lease_runs_out(self) -> None:
        """As if the time to live of whatever lease there is were over."""
        self.lease_skew += timedelta(seconds=LEASE_S + 1)

    def _shared_index(self, settings: Any) -> Any:
        from jobs.index.milvus.embedded import EmbeddedIndex

        place = Path(settings.milvus.uri)
        if self.index is not None and place != self._index_place:
            self.close_index()
        if self.index is None:
            self._index_place = place
            self.index = EmbeddedIndex(place, settings.milvus.search_params)
            self._close, self.index.close = self.index.close, lambda: None
        return self.index

    def close_index(self) -> None:
        """Give the index's files free, for a copy or a restore."""
        if self.index is not None:
            self._close()
            self.index = None

    # --- points ---

    def _point_of(self, method: Any, label: str) -> Any:
        @functools.wraps(method)
        def at(warehouse: Any, *args: Any, **kwargs: Any) -> Any:
            spec = next((a for a in args if hasattr(a, "stats_columns")), None)
            self._point(f"{label} {spec.name}" if spec is not None else label, warehouse)
            return method(warehouse, *args, **kwargs)

        return at

    def _plain_point(self, method: Any, label: str) -> Any:
        @functools.wraps(method)
        def at(*args: Any, **kwargs: Any) -> Any:
            self._point(label, None)
            return method(*args, **kwargs)

        return at

    def _point(self, name: str, warehouse: Any) -> None:
        process = next((p for p in self._processes if warehouse is not None and warehouse in p.warehouses), None)
        process = process or (self._processes[-1] if self._processes else None)
        if process is None:
            return
        if process.dead:
            raise Killed
        if threading.current_thread() is not threading.main_thread():
            # No place for another job; and for a kill by its name alone, for their order is not the same each time.
            if name == process.killed_at:
                process.dead = True
                raise Killed
            return
        process.points.append(name)
        if process.before is not None and process is self._processes[-1]:
            process.before(name, len(process.points) - 1)

    # --- jobs ---

    def run(
        self, name: str, *arguments: str, at: str | int | None = None, then: Callable[[], None] | None = None
    ) -> Answer:
        """Run a job by its command line. Before its point ``at`` (name, or number) ``then`` is done; None: the kill."""
        command: click.Command = importlib.import_module(f"jobs.{name}").main
        process = _Process.stopped(at, then)
        begun, out, code = time.monotonic(), io.StringIO(), 0
        self._processes.append(process)
        try:
            with self._environment(), contextlib.redirect_stdout(out):
                command.main(["--config", str(self.config), "--json", "--quiet", *arguments], prog_name=name)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Killed:
            code = -9
            # Its lease ends by itself; a run that comes later is not to wait for it here.
            self.lease_runs_out()
            if self._processes == [process]:
                # As its end does.
                self.close_index()
        finally:
            self._processes.remove(process)
        lines = [line for line in out.getvalue().strip().splitlines() if line.startswith("{")]
        said = json.loads(lines[-1]) if lines else {}
        seconds = time.monotonic() - begun
        self.seconds[name] += seconds  # type: ignore[assignment]  # typeshed counts in whole numbers only
        self.runs[name] += 1
        return Answer(name, code, said, seconds, tuple(process.points))

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        given = {"FACE_REINDEX_HMAC_KEY": ",".join(self.keys["hmac"])}
        if self.keys["tombstones"]:
            given["FACE_REINDEX_TOMBSTONE_KEYS"] = ",".join(self.keys["tombstones"])
        before = {name: os.environ.get(name) for name in ("FACE_REINDEX_HMAC_KEY", "FACE_REINDEX_TOMBSTONE_KEYS")}
        try:
            for name in before:
                os.environ.pop(name, None)
            os.environ.update(given)
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def rotated(self, new: str) -> list[str]:
        """The pseudonyms' keys with a new one, as docs/security.md has it."""
        return [new, *self.keys["hmac"]]

    @contextlib.contextmanager
    def as_job(self, *, at: str | int | None = None) -> Iterator[Any]:
        """What a job's own functions are given, for the parts of a job that are called by themselves.

        ``at``: the point at which whatever is done with it is killed.
        """
        if at is None:
            with self._job() as made:
                yield made
            return
        self._processes.append(process := _Process.stopped(at))
        try:
            with contextlib.suppress(Killed), self._job() as made:
                yield made
        finally:
            self._processes.remove(process)

    @contextlib.contextmanager
    def _job(self) -> Iterator[Any]:
        from jobs.runs.console import Console
        from jobs.runs.record import JobContext
        from jobs.settings import load_settings
        from jobs.tables.store import Warehouse

        with self._environment():
            settings = load_settings(str(self.config))
            warehouse = Warehouse(self.spark, settings.warehouse, is_path=True)
            yield JobContext(settings, warehouse, Console(quiet=True), None, False)

    def remove_table(self, name: str) -> None:
        """As where its folder was removed: the next job makes an empty one, without a word."""
        shutil.rmtree(self.folder / "warehouse" / name, ignore_errors=True)
        self._ready.discard(name)
        self._forget_tables()

    def _forget_tables(self) -> None:
        """Another process would not remember the newer versions."""
        jvm: Any = self.spark._jvm
        jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        self.spark.catalog.clearCache()

    # --- backups ---

    def back_up(self, label: str) -> None:
        """Copy the whole warehouse and index aside."""
        self.close_index()
        place = self.folder / "backups" / label
        shutil.rmtree(place, ignore_errors=True)
        for name in ("warehouse", "index.db"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, place / name)

    def restore(self, label: str, what: str) -> None:
        """Put a table, or ``index.db``, back as it was in a backup."""
        self.close_index()
        inside = what if what == "index.db" else f"warehouse/{what}"
        shutil.rmtree(self.folder / inside, ignore_errors=True)
        shutil.copytree(self.folder / "backups" / label / inside, self.folder / inside)
        self._forget_tables()
