"""`calibrate`: an executor of the user's cluster measured, and the rates of a plan that follow from it.

A rate has the name and the unit that it has in conf/rates.yaml. See `derived` for how each comes about.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from jobs.formatting import digits
from jobs.planning.model import Rate
from jobs.runs.machines import embedding_executors
from jobs.runs.results import Calibrated
from jobs.schemas import RUN_STEPS
from jobs.tables.store import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.embedding.measuring import Part
    from jobs.runs.console import Console
    from jobs.settings import Settings

# What part of the time each is measured for.
_SHARES: Final[dict[Part, float]] = {"images": 0.5, "decoded": 0.2, "cut": 0.05, "embedded": 0.25}
_LOOKED_BACK: Final = 20


def calibrate(spark: SparkSession, settings: Settings, console: Console, seconds: float) -> Calibrated:
    """Measure each part of the embedding stage, all tasks of all executors at once, for ``seconds`` in all.

    Spark spreads tasks over the executors: only where each has all that it can hold, one gets in the other's way as in
    a night.

    Raises:
        DependencyUnavailable, SettingsError: as `find_model`, `embedding_executors` and `check_limits`.
    """
    from jobs.embedding.measuring import an_executor, check_limits, measured
    from jobs.embedding.model import find_model, pipeline_params, ship_model

    check_limits(pipeline_params(settings))
    model = find_model(settings)
    console.step("model", model.weights.label, **model.described())
    spec = ship_model(spark, model, settings)
    # The first executor comes with the first task, and the others meanwhile.
    measured(spark, settings, spec, "images", tasks=1, seconds=0)
    there = embedding_executors(spark, settings)
    tasks = there.count * there.tasks
    for part in _SHARES:
        measured(spark, settings, spec, part, tasks=tasks, seconds=0)
    clock = time.monotonic()
    done = {
        part: measured(spark, settings, spec, part, tasks=tasks, seconds=share * seconds)
        for part, share in _SHARES.items()
    }
    rates = {part: float(f"{an_executor(rows):.4g}") for part, rows in done.items()}
    return Calibrated(
        **rates,
        dtype=settings.model.dtype,
        devices=tuple(sorted({device for row in done["images"] for device in row.devices})),
        weights=model.weights.label,
        executors=len({row.executor for row in done["images"]}),
        tasks=there.tasks,
        threads=there.tasks * spec.decode_threads,
        measured_s=round(time.monotonic() - clock, 1),
        machines=there.each,
    )


@dataclass(frozen=True)
class Calibration:
    """A calibration that is on record."""

    run_id: str
    ended: datetime
    result: Calibrated


def calibrations(warehouse: Warehouse) -> list[Calibration]:
    """The last calibrations, newest first."""
    rows = warehouse.rows(
        RUN_STEPS,
        "run_id, ended_at, result",
        where=f"{Calibrated.condition()} AND state = 'done'",
        order_by="ended_at DESC",
        limit=_LOOKED_BACK,
    )
    return [Calibration(r["run_id"], r["ended_at"], Calibrated.of_record(json.loads(r["result"]))) for r in rows]


def calibrated_rates(found: Sequence[Calibration], dtype: str, faces_each: float) -> dict[str, Rate]:
    """The rates of the newest calibration that has them, by their names; those of another ``dtype`` say nothing."""
    rates: dict[str, Rate] = {}
    for calibration in found:
        if calibration.result.dtype != dtype:
            continue
        source = (
            f"calibrate, run {calibration.run_id}, {calibration.ended:%Y-%m-%d}: "
            f"{what_was_measured(calibration.result)}; with {faces_each:.2f} faces an image"
        )
        for name, value in derived(calibration.result, faces_each).items():
            rates.setdefault(name, Rate(value, "images/s", source))
    return rates


def derived(result: Calibrated, faces_each: float) -> dict[str, float]:
    """Images a second of one core or GPU, by the names of conf/rates.yaml. Faces are added to pictures without any.

    * ``embed_cores_…``, where the networks ran on processors: an image takes an executor the time of one through
      decoding and detection, and for each face that of cutting out a crop and embedding it; over its cores.
    * ``embed_gpus``, where they ran on GPUs: the same without the cutting, which cores do meanwhile; over its GPUs.
      Where the GPU waited for the cores this counts as its time: it is what these machines do, not what it could do.
    * ``host_…``: an image takes the time of decoding it, and of cutting out its crops, on the decoding threads, whose
      cores these are. The thread that leads a task is counted with the networks.

    Nothing is said of the networks where some ran on GPUs and some on processors, nor of machines without a number.
    """
    rates: dict[str, float] = {}
    machines, each = result.machines, 1 / result.images + faces_each / result.embedded
    if result.on_gpus and machines.gpus:
        rates["embed_gpus"] = 1 / (each * machines.gpus)
    elif result.on_gpus is False and machines.cores:
        rates[f"embed_cores_{result.dtype}"] = 1 / ((each + faces_each / result.cut) * machines.cores)
    if busy := min(machines.cores, result.threads):
        rates[f"host_{result.dtype}"] = 1 / ((1 / result.decoded + faces_each / result.cut) * busy)
    return rates


def what_was_measured(result: Calibrated) -> str:
    """In words, and short."""
    machines = result.machines
    on = f"{machines.gpus:,} GPUs and {machines.cores:,} cores" if machines.gpus else f"{machines.cores:,} cores"
    return (
        f"an executor of {on} searches {digits(result.images)} images/s for faces and embeds "
        f"{digits(result.embedded)} crops/s ({', '.join(result.devices)})"
    )
