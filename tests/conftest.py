"""Fixtures for all tests: one Spark session, and pictures that may be passed on. And what no test may say."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

#: What jobs and `doctor` say of an error that nobody foresaw: whoever meets it has found a defect, passed or not.
UNFORESEEN = re.compile(r"\ban unforeseen \w+\.")
_READ = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, Any, Any]:
    """What a test reads of its own output is no longer there when it ends: it is kept for the look at it."""
    made = yield
    if isinstance(made, pytest.CaptureFixture):
        kept = request.node.stash.setdefault(_READ, [])
        # (An attribute of this one object; the class is pytest's.)
        vars(made)["readouterr"] = _keeping(made.readouterr, kept)
    return made


def _keeping(read: Callable[[], Any], kept: list[str]) -> Callable[[], Any]:
    def readouterr() -> Any:
        found = read()
        kept.extend(part if isinstance(part, str) else part.decode("utf-8", "replace") for part in found)
        return found

    return readouterr


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that says `unforeseen` fails, unless it is marked so; and so does one that is marked and says it not."""
    report = yield
    if not report.passed:
        return report
    texts = [text for name, text in report.sections if name.endswith(report.when)]
    said = _first_unforeseen([*texts, *(read := item.stash.get(_READ, []))])
    read.clear()
    wanted = report.when == "call" and item.get_closest_marker("unforeseen") is not None
    if said and not wanted:
        report.outcome = "failed"
        report.longrepr = (
            f"It says {said!r}, as jobs do of an error that nobody foresaw. Give that error a reason of its own; a "
            "test that is about this very message has the marker `unforeseen`."
        )
    elif wanted and not said:
        report.outcome = "failed"
        report.longrepr = "It has the marker `unforeseen`, and its output says nothing of the kind: take it away."
    return report


def _first_unforeseen(texts: list[str]) -> str | None:
    return next((found[0] for text in texts if (found := UNFORESEEN.search(text))), None)


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
