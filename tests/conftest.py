"""Fixtures for all tests: one Spark session, and pictures that may be passed on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from bench.pictures import Picture
    from tests.spark.indexed import Indexed

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: several processes share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test fails for a machine that is busy.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

PURPOSE = "face-reindex:DuplicateDetection"


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one session: Delta, two cores, few partitions."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.sql import SparkSession

    from jobs.session import open_session, read_properties

    home = tmp_path_factory.mktemp("spark")
    builder = SparkSession.builder.master("local[2]")
    for key, value in read_properties().items():
        builder = builder.config(key, value)
    builder.config("spark.sql.shuffle.partitions", "2").config("spark.sql.warehouse.dir", str(home)).config(
        "spark.driver.extraJavaOptions",
        f"-Dderby.system.home={home} -XX:ReservedCodeCacheSize=512m -XX:+UseSerialGC",
    )
    # A query over ten rows is not worth compiling, nor planning twice: a fifth less time. (What is run by
    # `python -m` and `spark-submit` in tests/e2e has the settings of conf/.)
    builder.config("spark.sql.codegen.wholeStage", "false").config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    builder.config("spark.sql.adaptive.enabled", "false")
    import sys

    os.environ["PYSPARK_PYTHON"] = sys.executable
    # Ivy's cache is not safe for two that fill it at once.
    with FileLock(Path(tempfile.gettempdir(), f"face-reindex-tests-{os.getuid()}.lock")):
        builder.getOrCreate()
    session = open_session("tests")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def indexed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """A small warehouse with a promoted collection, for tests that copy it: built once for all processes."""
    from tests.spark.indexed import build

    base = tmp_path_factory.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(place / "indexed.lock"):
        return build(spark, place / "indexed").copy_to(tmp_path_factory.mktemp("indexed") / "w")


@pytest.fixture(scope="session")
def _empty_tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables that `ingest` writes, empty: to make one takes longer than most of what is tested on it."""
    from jobs import schemas
    from tests.spark.helpers import settings_for, warehouse_for

    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tables"
    with FileLock(f"{place}.lock"):
        if not (place / "complete").exists():
            warehouse = warehouse_for(spark, settings_for(place))
            for spec in (
                schemas.IMAGES, schemas.PROCESSING_BASIS, schemas.BASIS_LINKS, schemas.BASIS_QUARANTINE,
                schemas.SOURCE_BATCHES, schemas.TOMBSTONES, schemas.PSEUDONYM_KEYS,
            ):  # fmt: skip
                warehouse.read(spec)
            (place / "complete").touch()
    return place / "warehouse"


@pytest.fixture
def tables(_empty_tables: Path, tmp_path: Path) -> None:
    """The warehouse of a test's own folder has these tables already."""
    shutil.copytree(_empty_tables, tmp_path / "warehouse")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Picture]]:
    """A folder of pictures of every kind, and what is in it."""
    from bench.pictures import make_pictures

    folder = tmp_path_factory.mktemp("pictures")
    return folder, make_pictures(folder)
