"""One small indexed warehouse for all tests of this folder: a minute to make, so it is made once and copied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests.spark.helpers import warehouse_for
from tests.spark.indexed import Indexed, build, indexed_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def base(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """The warehouse as it was made, shared by the processes of a test run: to read, or to copy (`copy_to`)."""
    home = tmp_path_factory.getbasetemp()
    home = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "indexed"
    home.mkdir(exist_ok=True)
    folder, made = home / "base", home / "made"
    with FileLock(home / "lock"):
        if not made.exists():
            build(spark, folder)
            made.touch()
    settings = indexed_settings(folder)
    return Indexed(spark, folder, settings, warehouse_for(spark, settings))
