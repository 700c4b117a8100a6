"""Plain files beside the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.tables.sources import hadoop_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def remove_tree(spark: SparkSession, location: str) -> None:
    """Remove a folder or prefix and what is in it; a place that is not there is fine."""
    system, path = hadoop_path(spark, location)
    system.delete(path, True)
