"""The machines that a run has at a moment, for its record: rates by core and by GPU come from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Cores and GPUs; 0 where they are not known."""

    cores: int = 0
    gpus: int = 0


def cluster_resources(spark: SparkSession, settings: Settings) -> Machines:
    """Cores and GPUs of the executors that are registered now; 0 cores where they cannot be told."""
    context = spark.sparkContext
    conf = context.getConf()
    # Spark's public count of cores, unless it was set; and a device that was forced is not in any of its counts.
    told = not conf.contains("spark.default.parallelism") and not os.environ.get("FACE_REINDEX_DEVICE")
    cores = int(context.defaultParallelism) if told else 0
    if not settings.executor.gpus_per_task:
        return Machines(cores=cores)
    # The driver is one of those that are listed. Dynamic allocation may hold executors without a GPU beside the others:
    # then more are counted, and a plan takes a GPU for slower than it is, never for faster.
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1
    each = int(conf.get("spark.executor.resource.gpu.amount", "") or settings.executor.gpus_per_executor)
    return Machines(cores=cores, gpus=max(0, executors) * each)
