"""Where the rates of a plan come from: a setting, else the newest run that measured it, else the newest calibration, or
else the benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import yaml
from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.index.collections import segment_rows
from jobs.index.protocol import IndexSpec
from jobs.planning.model import CORES, GPUS, LABELS, NODES, Rate, Rates, index_growth
from jobs.runs.results import (
    Embedded,
    IdCollisionsResolved,
    Imported,
    Indexed,
    Screened,
    Staged,
    Verified,
    present_names,
)
from jobs.runs.step_result import StepResult
from jobs.schemas import RUN_STEPS
from jobs.session import packaged_conf
from jobs.settings import Settings
from jobs.tables.store import Warehouse

_RUNS = 20
# A shorter step says more about starting it than about the rate at which it works.
_LEAST_S = 60.0
_KINDS: tuple[type[StepResult], ...] = (Screened, Embedded, IdCollisionsResolved, Staged, Imported, Indexed, Verified)
_ON_EXECUTORS: tuple[type[StepResult], ...] = (Screened, Embedded, Staged, Verified)
_IN_MILVUS: tuple[type[StepResult], ...] = (Imported, Indexed)


@dataclass(frozen=True)
class Measured:
    """What the steps of one kind did in one run. ``machine_s``: by pool, machines times seconds."""

    kind: str
    seconds: float
    ended: float
    images: float = 0.0
    rows: float = 0.0
    machine_s: Mapping[str, float] | None = None
    index: str | None = None
    by_import: bool = False
    one_process: bool = True

    def machines(self, pool: str) -> float:
        """Machines of a pool, on average; 0 where they are not on record."""
        return (self.machine_s or {}).get(pool, 0.0) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class PastRun:
    """A run's measured steps."""

    run_id: str
    steps: Mapping[str, Measured]


def recorded(warehouse: Warehouse) -> list[PastRun]:
    """What the last runs measured, newest first; steps are summed by Spark, for a night has thousands of chunks."""

    def told(name: str, *kinds: type[StepResult]) -> Column:
        """What steps of several kinds record under one name."""
        first, *_ = [kind.column(name) for kind in kinds]
        return first.cast("double")

    rows_of = F.coalesce(told("rows", Staged, *_IN_MILVUS), told("rows_found", Verified))
    machines = {
        CORES: told("cores", *_ON_EXECUTORS), GPUS: told("gpus", *_ON_EXECUTORS), NODES: told("data_nodes", *_IN_MILVUS)
    }  # fmt: skip
    kind = F.substring_index(present_names(), "/", 1)
    steps = (
        warehouse.read(RUN_STEPS)
        .where(F.col("state") == "done")
        .where(kind.isin(*(each.STEP.rstrip("/") for each in _KINDS)))
    )
    newest = steps.groupBy("run_id").agg(F.max("ended_at").alias("at")).orderBy(F.col("at").desc()).limit(_RUNS)
    rows = (
        steps.join(F.broadcast(newest), "run_id")
        .groupBy("at", "run_id", kind.alias("kind"))
        .agg(
            F.sum("seconds").alias("seconds"),
            F.max(F.unix_micros("ended_at")).alias("ended"),
            F.sum(told("images", Screened, Embedded)).alias("images"),
            F.sum(rows_of).alias("rows"),
            *(F.sum(F.col("seconds") * there).alias(pool) for pool, there in machines.items()),
            F.max(Indexed.column("index")).alias("index"),
            F.max(Imported.column("by_import")).alias("by_import"),
            F.count_distinct("fencing_token").alias("processes"),
        )
        .orderBy(F.col("at").desc())
        .collect()
    )
    runs: dict[str, dict[str, Measured]] = {}
    for row in rows:
        runs.setdefault(row["run_id"], {})[row["kind"]] = Measured(
            kind=row["kind"],
            seconds=row["seconds"],
            ended=row["ended"] / 1e6,
            images=row["images"] or 0.0,
            rows=row["rows"] or 0.0,
            machine_s={pool: row[pool] or 0.0 for pool in (CORES, GPUS, NODES)},
            index=row["index"],
            by_import=bool(row["by_import"]),
            one_process=row["processes"] == 1,
        )
    return [PastRun(run_id, steps) for run_id, steps in runs.items()]


def defaults() -> dict[str, Any]:
    """The figures of conf/rates.yaml."""
    content: dict[str, Any] = yaml.safe_load(packaged_conf("rates.yaml").read_text(encoding="utf-8"))
    return content


def choose(
    settings: Settings,
    runs: Sequence[PastRun],
    spec: IndexSpec,
    rows: int,
    *,
    by_import: bool,
    calibrated: Mapping[str, Rate] = MappingProxyType({}),
) -> Rates:
    """The rates of a night that loads ``rows`` faces into an index of ``spec``.

    ``calibrated``: what calibrations measured (`calibrated_rates`), by the names of conf/rates.yaml.
    """
    planning, bench, dtype = settings.planning, defaults(), settings.model.dtype
    gpus = _set("images_per_s_per_gpu", planning.images_per_s_per_gpu) or _embedding(runs, GPUS)
    # With a GPU, what the cores kept up with is a rate of theirs, too, though perhaps not the highest.
    kept_up = _embedding([run for run in runs if "embed" in run.steps and run.steps["embed"].machines(GPUS)], CORES)
    host = calibrated.get(f"host_{dtype}") or _of(bench, f"host_{dtype}")
    indexed = _indexing(runs, spec, by_import=by_import)
    return Rates(
        gate=_past(runs, "gate", CORES, "images") or _of(bench, "gate"),
        embed_cores=_set("images_per_s_per_core", planning.images_per_s_per_core)
        or _embedding([run for run in runs if "embed" in run.steps and not run.steps["embed"].machines(GPUS)], CORES)
        or calibrated.get(f"embed_cores_{dtype}")
        or _of(bench, f"embed_cores_{dtype}"),
        embed_gpus=gpus or calibrated.get("embed_gpus") or _of_another_card(bench, f"embed_gpus_{dtype}"),
        host=_set("host_images_per_s_per_core", planning.host_images_per_s_per_core)
        or max((rate for rate in (kept_up, host) if rate), key=lambda rate: rate.value, default=None),
        stage=_past([_with_id_check(run) for run in runs], "stage", CORES, "rows") or _of(bench, "stage"),
        load=_importing(settings, runs, bench, by_import=by_import),
        index=indexed or (_built(settings, bench, spec, rows) if by_import else None),
        index_loads=indexed is not None,
        warm=_of(bench, "warm") if by_import else None,
        verify=_past(runs, "verify", CORES, "rows"),
    )


def _set(name: str, value: float | None) -> Rate | None:
    unit = "images/s" if name.startswith(("images", "host")) else "rows/s"
    return None if value is None else Rate(value, unit, f"the setting planning.{name}")


def _of(bench: Mapping[str, Any], name: str) -> Rate | None:
    return Rate(**bench[name]) if name in bench else None


def _of_another_card(bench: Mapping[str, Any], name: str) -> Rate:
    return Rate(**bench[name], other_card=True)


def _past(runs: Sequence[PastRun], kind: str, pool: str, unit: str) -> Rate | None:
    """The rate of the newest run that did this for long enough, on machines that are on record."""
    for run in runs:
        step = run.steps.get(kind)
        if step is None or step.seconds < _LEAST_S or not step.machines(pool):
            continue
        amount = step.images if unit == "images" else step.rows
        if amount:
            on = f"{step.machines(pool):,.3g} {LABELS[pool]}"
            when = datetime.fromtimestamp(step.ended, UTC)
            source = f"run {run.run_id}, {when:%Y-%m-%d}: {amount:,.0f} {unit} in {step.seconds:,.0f} s on {on}"
            return Rate(amount / (step.seconds * step.machines(pool)), f"{unit}/s", source)
    return None


def _embedding(runs: Sequence[PastRun], pool: str) -> Rate | None:
    return _past(runs, "embed", pool, "images")


def _with_id_check(run: PastRun) -> PastRun:
    """Looking for ids that stand twice belongs to staging."""
    stage, id_check = run.steps.get("stage"), run.steps.get("resolve-id-collisions")
    if stage is None or id_check is None:
        return run
    grown = 1 + id_check.seconds / stage.seconds if stage.seconds else 1.0
    return PastRun(run.run_id, {**run.steps, "stage": _longer(stage, grown)})


def _longer(step: Measured, factor: float) -> Measured:
    machine_s = {pool: seconds * factor for pool, seconds in (step.machine_s or {}).items()}
    return replace(step, seconds=step.seconds * factor, machine_s=machine_s)


def _importing(settings: Settings, runs: Sequence[PastRun], bench: Mapping[str, Any], *, by_import: bool) -> Rate:
    given = Rate(settings.milvus.import_rows_per_s, "rows/s", "the setting milvus.import_rows_per_s")
    if "import_rows_per_s" in settings.milvus.model_fields_set:
        return given
    # An import that was resumed took longer than its last process.
    alike = [
        run for run in runs if (step := run.steps.get("import")) and step.one_process and step.by_import is by_import
    ]
    measured = _past(alike, "import", NODES, "rows") or (_of(bench, "load") if by_import else None)
    return measured or replace(given, source="ASSUMED: milvus.import_rows_per_s as it is by default", assumed=True)


def _indexing(runs: Sequence[PastRun], spec: IndexSpec, *, by_import: bool) -> Rate | None:
    """Rows a second of a data node that builds the index and loads it."""
    alike = [
        run
        for run in runs
        if (step := run.steps.get("index")) and step.index == spec.index_type and step.by_import is by_import
    ]
    return _past(alike, "index", NODES, "rows")


def _built(settings: Settings, bench: Mapping[str, Any], spec: IndexSpec, rows: int) -> Rate | None:
    """A data node's rate from the benchmark's for a core, and what a row costs more in larger segments."""
    planning, at = settings.planning, bench["index_measured"]
    rate = _set("index_rows_per_s_per_core", planning.index_rows_per_s_per_core)
    if rate is not None:
        return replace(rate, value=rate.value * planning.node_cores)
    if spec.index_type not in bench["index"]:
        return None
    rate = _of(bench["index"], spec.index_type)
    assert rate is not None  # noqa: S101 - it was looked for
    growth = index_growth(
        spec,
        rows,
        segment_rows=segment_rows(settings.milvus.vector_type),
        measured_rows=at["rows_a_segment"],
        measured_lists=at["nlist"],
    )
    assumed = (
        f"; ASSUMED: {planning.node_cores} cores a data node (planning.node_cores), time in proportion to rows, and a "
        f"row {growth:.1f} times as dear in full segments"
    )
    return replace(rate, value=rate.value * planning.node_cores / growth, source=rate.source + assumed)
