"""Whether the warehouse can be written and read at all: by files and a table of their own names, which are removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from jobs.errors import DependencyUnavailable
from jobs.tables.files import exists, hadoop_path, modified_at, read_text, remove_tree, write_text

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.tables.store import Warehouse

_TEXT = "written by doctor"
_NOT_SHARED = "give it a place that driver and executors share: an object store, HDFS, or a mount of the same name."


@contextmanager
def folder_of_a_trial(spark: SparkSession, location: str) -> Iterator[None]:
    """A place to write into: gone at the end, with those above it that were not there before and are empty."""
    above = _missing_above(spark, location)
    try:
        yield
    finally:
        remove_tree(spark, location)
        for folder in above:
            system, path = hadoop_path(spark, folder)
            if system.exists(path) and not system.listStatus(path):
                system.delete(path, False)


def _missing_above(spark: SparkSession, location: str) -> list[str]:
    """The folders above a place that are not there, the deepest first. (An object store has none to leave behind.)"""
    system, path = hadoop_path(spark, location)
    found: list[str] = []
    while (path := path.getParent()) is not None and not system.exists(path):
        found.append(str(path.toString()))
    return found


def write_and_read_file(spark: SparkSession, folder: str) -> float:
    """The driver writes a small file and reads it back; returns when the store says that it was written (s, 1970).

    Raises:
        DependencyUnavailable: something else was read.
    """
    place = f"{folder}/by-the-driver"
    write_text(spark, place, _TEXT)
    if read_text(spark, place) != _TEXT:
        raise DependencyUnavailable(f"What was written to {place} is not what is read there.", hint=_NOT_SHARED)
    return modified_at(spark, place) / 1000


def write_and_read_table(warehouse: Warehouse, name: str, tasks: int) -> None:
    """Executors write a Delta table beside the others, and read it; the driver sees the files that they wrote.

    Raises:
        DependencyUnavailable: the driver or the executors do not see what the other has written.
    """
    spark, made = warehouse.spark, False
    frame = warehouse.spark.range(0, tasks, 1, tasks)
    if warehouse.is_path:
        place = f"{warehouse.location}/{name}"
        with folder_of_a_trial(spark, place):
            frame.write.format("delta").save(place)
            _check(spark, spark.read.format("delta").load(place), tasks, warehouse.location)
        return
    try:
        if not spark.catalog.databaseExists(warehouse.location):
            spark.sql(f"CREATE SCHEMA {warehouse.location}")
            made = True
        frame.write.format("delta").saveAsTable(f"{warehouse.location}.{name}")
        _check(spark, spark.read.table(f"{warehouse.location}.{name}"), tasks, warehouse.location)
    finally:
        spark.sql(f"DROP TABLE IF EXISTS {warehouse.location}.{name}")
        if made:
            # Refused where somebody else has put a table there meanwhile.
            with suppress(AnalysisException):
                spark.sql(f"DROP SCHEMA {warehouse.location}")


def _check(spark: SparkSession, table: Any, tasks: int, location: str) -> None:
    if not all(exists(spark, file) for file in table.inputFiles()):
        raise DependencyUnavailable(
            f"The driver does not see files that executors have written below {location}.", hint=_NOT_SHARED
        )
    found = table.agg(F.sum("id")).first()[0]
    if found != tasks * (tasks - 1) // 2:
        raise DependencyUnavailable(f"Executors do not read below {location} what they wrote there.", hint=_NOT_SHARED)
