"""The machines that a run has at a moment, for its record: rates by core and by GPU come from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.errors import SettingsError
from jobs.settings import Settings

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

# A share of a GPU such as 0.1 is not a tenth to the last bit.
_ROUNDING: Final = 1e-9


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
    # Dynamic allocation may hold executors without a GPU beside the others: then more are counted, and a plan takes a
    # GPU for slower than it is, never for faster.
    return Machines(cores=cores, gpus=registered_executors(context) * _gpus_each(conf, settings))


@dataclass(frozen=True, kw_only=True)
class EmbeddingExecutors:
    """Executors of the embedding stage: how many there are, the machines and the tasks at once of each of them."""

    count: int
    each: Machines
    tasks: int


def embedding_executors(spark: SparkSession, settings: Settings) -> EmbeddingExecutors:
    """The executors that the embedding stage finds now; one, where it has to wait for its own.

    Raises:
        SettingsError: Spark does not say how many cores an executor has.
    """
    context, conf, share = spark.sparkContext, spark.sparkContext.getConf(), settings.executor.gpus_per_task
    local = conf.get("spark.master", "").startswith("local")
    # With dynamic allocation the stage has executors of its own as soon as it wants GPUs: as many as its tasks need.
    own = bool(share) and conf.get("spark.dynamicAllocation.enabled", "false") == "true"
    count = 1 if own else max(1, registered_executors(context))
    told = None if local else conf.get("spark.executor.cores", None)
    if told is None and conf.contains("spark.default.parallelism"):
        raise SettingsError(
            "Spark does not say how many cores an executor has.",
            hint="set spark.executor.cores, or take spark.default.parallelism out of the properties file.",
        )
    cores = int(told or max(1, int(context.defaultParallelism) // count))
    if not share:
        tasks = cores // int(conf.get("spark.task.cpus", None) or 1)
        return EmbeddingExecutors(count=count, each=Machines(cores=cores), tasks=max(1, tasks))
    gpus = 0 if local else _gpus_each(conf, settings)
    at_once = gpus * int(1 / share + _ROUNDING) if share < 1 else int(gpus / share)
    return EmbeddingExecutors(count=count, each=Machines(cores=cores, gpus=gpus), tasks=max(1, min(cores, at_once)))


def registered_executors(context: SparkContext) -> int:
    """Executors that are there now; none in local mode. The driver is one of those that are listed."""
    return max(0, len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1)


def _gpus_each(conf: SparkConf, settings: Settings) -> int:
    return int(conf.get("spark.executor.resource.gpu.amount", "") or settings.executor.gpus_per_executor)
