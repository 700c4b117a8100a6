"""What a run's steps took, as Spark aggregates over `run_steps`: steps, chunks over time, imports file by file.

However many chunks and files a run had, at most `_POINTS` rows of them come to the driver. Times are seconds since
1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.runs.results import Embedded, FileImported, Staged, present_names

_POINTS: Final = 60


@dataclass(frozen=True)
class StepTiming:
    """One kind of step: when it began and ended, and the seconds that it took in all."""

    name: str
    begin: float
    end: float
    seconds: float
    times: int


@dataclass(frozen=True)
class Throughput:
    """One chunk, or some that followed each other: images a second, and the networks' share of the workers' time."""

    begin: float
    end: float
    images: int
    faces: int
    seconds: float
    share: float | None

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.seconds, 1e-3)


@dataclass(frozen=True)
class Computed:
    """All chunks of a run together. ``share`` is None where nothing was timed."""

    images: int = 0
    faces: int = 0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    share: float | None = None


@dataclass(frozen=True)
class ImportTotals:
    """Staged files and what became of them. Seconds are a file's, from the start of its job to its end."""

    files: int
    rows: int
    bytes: int
    rows_low: int
    rows_high: int
    loaded_files: int
    loaded_rows: int
    jobs: int
    failures: int
    by_insert: bool
    seconds: tuple[float, float, float] | None  # shortest, median, longest


def last_done(steps: DataFrame) -> DataFrame:
    """Each step's last outcome, where that is not that it was forgotten."""
    last = F.max_by(F.struct("state", "result", "started_at", "ended_at"), "ended_at").alias("last")
    by_step = steps.groupBy("run_id", present_names().alias("step")).agg(last)
    return by_step.select("run_id", "step", "last.*").where("state = 'done'")


def step_timings(steps: DataFrame, starts: DataFrame) -> list[StepTiming]:
    """Seconds by kind of step, in the order in which they began.

    A step's time is what passed since the one before it was recorded, or since the run was (re)started (``starts``):
    much is computed just before the step that records it.
    """
    done = steps.where((F.col("state") == "done") & ~FileImported.of_step())
    name = F.split_part(present_names(), F.lit("/"), F.lit(1)).alias("name")
    marks = done.select("run_id", name, _seconds("ended_at"))
    marks = marks.unionByName(
        starts.select("run_id", F.lit(None).cast("string").alias("name"), _seconds("recorded_at"))
    )
    before = F.lag("at").over(Window.partitionBy("run_id").orderBy("at"))
    rows = (
        marks.withColumn("before", F.coalesce(before, F.col("at")))
        .where("name IS NOT NULL")
        .groupBy("name")
        .agg(
            F.min("before").alias("begin"),
            F.max("at").alias("end"),
            F.sum(F.col("at") - F.col("before")).alias("seconds"),
            F.count("*").alias("times"),
        )
        .orderBy("begin", "end")
    )
    return [StepTiming(**row.asDict()) for row in rows.collect()]


def chunks_of(steps: DataFrame) -> DataFrame:
    """The chunks that a run embedded: begin, end, and their results as columns."""
    chunks = last_done(steps.where(Embedded.of_step()))
    return chunks.select(
        "run_id",
        _seconds("started_at", "begin"),
        _seconds("ended_at", "end"),
        F.from_json("result", Embedded.ddl()).alias("result"),
    ).select("run_id", "begin", "end", "result.*")


def computed(chunks: DataFrame) -> Computed:
    """Totals of all chunks."""
    totals = chunks.agg(
        F.sum("images").alias("images"),
        F.sum("faces").alias("faces"),
        F.sum(F.col("end") - F.col("begin")).alias("seconds"),
        _share().alias("share"),
    ).first()
    if totals is None or totals["images"] is None:
        return Computed()
    statuses = chunks.select(F.explode("statuses").alias("status", "images")).groupBy("status").sum("images").collect()
    names = chunks.select(F.explode("device.names").alias("name")).distinct().orderBy("name").limit(_POINTS).collect()
    return Computed(
        totals["images"],
        totals["faces"],
        totals["seconds"],
        {row["status"]: row[1] for row in statuses},
        tuple(row["name"] for row in names),
        totals["share"],
    )


def throughput(chunks: DataFrame) -> list[Throughput]:
    """Chunks in the order of time; where there are many, neighbours are put together."""
    part = F.ntile(_POINTS).over(Window.partitionBy("run_id").orderBy("end"))
    rows = (
        chunks.withColumn("part", part)
        .groupBy("part")
        .agg(
            F.min("begin").alias("begin"),
            F.max("end").alias("end"),
            F.sum("images").alias("images"),
            F.sum("faces").alias("faces"),
            F.sum(F.col("end") - F.col("begin")).alias("seconds"),
            _share().alias("share"),
        )
        .orderBy("part")
        .drop("part")
    )
    return [Throughput(**row.asDict()) for row in rows.collect()]


def import_totals(steps: DataFrame) -> ImportTotals | None:
    """The staged files' sizes, and how their imports went; None where nothing was staged."""
    manifest = (
        last_done(steps.where(Staged.of_step()))
        .select(F.explode(Staged.column("files")).alias("file"))
        .select("file.file_no", "file.rows", "file.bytes")
    )
    spent = F.col("end") - F.col("begin")
    loaded = F.col("end").isNotNull()
    row = (
        manifest.join(_file_outcomes(steps), "file_no", "left")
        .agg(
            F.count("*").alias("files"),
            F.sum("rows").alias("rows"),
            F.sum("bytes").alias("bytes"),
            F.min("rows").alias("rows_low"),
            F.max("rows").alias("rows_high"),
            F.count_if(loaded).alias("loaded_files"),
            F.coalesce(F.sum(F.when(loaded, F.col("rows"))), F.lit(0)).alias("loaded_rows"),
            F.count_distinct("job").alias("jobs"),
            F.coalesce(F.sum("failures"), F.lit(0)).alias("failures"),
            F.coalesce(F.bool_or(F.col("job") == "insert"), F.lit(False)).alias("by_insert"),
            F.percentile_approx(spent, (0.0, 0.5, 1.0)).alias("seconds"),
        )
        .first()
    )
    if row is None or not row["files"]:
        return None
    return ImportTotals(**{**row.asDict(), "seconds": tuple(row["seconds"]) if row["seconds"] else None})


def _file_outcomes(steps: DataFrame) -> DataFrame:
    """file_no, begin, end (null: not loaded), job, failures."""
    outcome = F.from_json("result", FileImported.ddl()).alias("outcome")
    number = F.split_part("step", F.lit("/"), F.lit(2)).cast("int").alias("file_no")
    told = steps.where(FileImported.of_step()).select(number, "state", outcome, _seconds("ended_at"))

    def last(state: str, at: Column) -> Column:
        return F.max(F.when((F.col("state") == "done") & (F.col("outcome.state") == state), at))

    by_file = told.groupBy("file_no").agg(
        # Records of earlier releases hold no times: they were made at once.
        F.coalesce(F.max("outcome.began"), last("started", F.col("at"))).alias("begin"),
        last("done", F.coalesce("outcome.ended", "at")).alias("end"),
        F.max(F.when(F.col("state") == "forgotten", F.col("at"))).alias("forgotten"),
        F.max_by(F.when(F.col("outcome.job_id") != "", F.col("outcome.job_id")), "at").alias("job"),
        F.count_if(F.col("outcome.state") == "failed").alias("failures"),
    )
    gone = F.coalesce(F.col("forgotten") >= F.col("end"), F.lit(False))
    return by_file.withColumn("end", F.when(~gone, F.col("end")))


def _share() -> Column:
    """Seconds that the networks computed, of those that the workers spent."""
    return F.sum("device.network_s") / F.nullif(F.sum("device.elapsed_s"), F.lit(0.0))


def _seconds(column: str, name: str = "at") -> Column:
    return (F.unix_micros(column) / 1e6).alias(name)
