"""What is wrong around a job is told in one sentence with the next step, and ends with the right exit code."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.sql import functions as F

from jobs.runs.error_messages import explained
from tests.spark.helpers import settings_for

if TYPE_CHECKING:
    import click
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ended(main: click.Command, folder: Path, *overrides: str) -> int:
    """Run a job in this process, in the session that is there; its exit code."""
    settings = [f"warehouse={folder}/warehouse", "governance.purposes=[p]", "governance.allowed_purposes=[p]",
                "model.weights=random", f"milvus.uri={folder}/index.db", *overrides]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main.main([part for setting in settings for part in ("--set", setting)], prog_name=str(main.name))
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("warehouse", "code", "message"),
    [
        ("{folder}/file/warehouse", 2, "is a file, or lies below one"),
        # Where nobody can make a folder, root neither.
        ("/proc/face-reindex", 1, "This user may not read or write warehouse (/proc/face-reindex)"),
        ("s3a://bucket/faces", 2, "org.apache.hadoop:hadoop-aws"),
    ],
)
def test_a_warehouse_that_cannot_be_written(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], warehouse: str, code: int, message: str
) -> None:
    from jobs.embed import main

    (tmp_path / "file").write_text("in the folder's place")
    assert ended(main, tmp_path, f"warehouse={warehouse.format(folder=tmp_path)}") == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
    assert line.count("Next step: ") == 1


def test_weights_and_a_milvus_out_of_reach(
    spark: SparkSession,
    tmp_path: Path,
    closed_port: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobs.embed import main as embed
    from jobs.reindex import main as reindex

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    assert ended(embed, tmp_path, "model.weights=vggface2", f"model.cache_dir={tmp_path}/cache") == 5
    assert "can't be downloaded" in capsys.readouterr().err
    assert ended(embed, tmp_path, f"model.weights={tmp_path}/none.pt") == 2
    assert "no file 'none.pt'" in capsys.readouterr().err
    assert ended(reindex, tmp_path, f"milvus.uri=http://127.0.0.1:{closed_port}") == 5
    assert f"Milvus did not answer (http://127.0.0.1:{closed_port})" in capsys.readouterr().err


def test_the_workers_have_another_python_or_none(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = spark.range(1)
    for attribute, value, message in (
        ("pythonVer", "3.7", "run another Python than the driver"),
        ("pythonExec", "/nowhere/python", "The workers' Python is not there"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(spark.sparkContext, attribute, value)
            with pytest.raises(Exception, match=r"(?i)python") as caught:
                rows.select(F.udf(lambda value: value, "long")("id")).collect()
        told = explained(caught.value, settings_for(tmp_path))
        assert told is not None
        assert (told.exit_code, message in str(told)) == (2, True)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (
            {"spark.driver.port": "{port}", "spark.port.maxRetries": "0"},
            5,
            "A port that Spark's driver was told to use",
        ),
        ({"spark.driver.bindAddress": "192.0.2.1"}, 2, "no address that it can listen at"),
        ({"spark.master": "local[many"}, 2, "spark.master is none that Spark knows"),
    ],
)
def test_spark_that_does_not_start(
    tmp_path: Path, taken_port: int, changes: dict[str, str], code: int, message: str
) -> None:
    properties = tmp_path / "spark.conf"
    given = {"spark.master": "local[1]", "spark.driver.host": "127.0.0.1", **changes}
    properties.write_text("\n".join(f"{key} {value.format(port=taken_port)}" for key, value in given.items()))
    command = [sys.executable, "-m", "jobs.plan", "--properties-file", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    line = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, message in line) == (code, True), line
    assert line.count("Next step: ") == 1


def test_a_damaged_table_is_named(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.embed import main as embed
    from jobs.status import main as status

    def told() -> str:
        assert ended(status, tmp_path) == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert ended(embed, tmp_path) == 3
    assert ended(status, tmp_path) == 0
    capsys.readouterr()
    jvm: Any = spark._jvm
    runs = tmp_path / "warehouse" / "runs"
    log = sorted((runs / "_delta_log").glob("*.json"))[-1]
    whole = log.read_text()
    for path in (log, log.with_name(f".{log.name}.crc")):
        path.unlink(missing_ok=True)
    log.write_text("no line of a log\n")
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    assert "Table runs is damaged: its log cannot be read" in told()
    log.write_text(whole)
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    for file in runs.glob("*.parquet"):
        file.unlink()
    assert "Table runs is damaged: a file that its log names is gone" in told()
