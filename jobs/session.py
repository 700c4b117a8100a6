"""The Spark session, the same under `spark-submit` and `python -m`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import DependencyUnavailable, SettingsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"


def open_session(app_name: str, properties_file: str | None = None) -> SparkSession:
    """Return a session that has Delta.

    Under `spark-submit` the properties come from there. Under `python -m` they come from ``properties_file``, or
    from the packaged `conf/spark-local.conf`.

    Raises:
        SettingsError: Delta is not configured.
        DependencyUnavailable: no Java, or Delta's JARs cannot be fetched.
    """
    from pyspark import SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if SparkContext._active_spark_context is None:
        builder = builder.appName(app_name)
        for key, value in ({} if submitted else read_properties(properties_file)).items():
            builder = builder.config(key, value)
    _same_python_for_workers(submitted)
    try:
        session = builder.getOrCreate()
    except (PySparkRuntimeError, FileNotFoundError) as error:
        raise DependencyUnavailable(
            f"Spark's Java process did not start ({type(error).__name__}).",
            hint="install Java 17 (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) and set JAVA_HOME; "
            "the first start also needs a Maven repository for Delta's JARs.",
        ) from None
    if _DELTA_EXTENSION not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise SettingsError(
            "Delta Lake is not configured in this Spark session.",
            hint="add --properties-file conf/spark-local.conf (or the one of your cluster) to spark-submit.",
        )
    # Timestamps of records and events mean the same on every driver.
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


def _same_python_for_workers(submitted: bool) -> None:
    """On one machine the workers use the driver's Python; on a cluster its own settings say which."""
    from pyspark import SparkConf

    if "PYSPARK_PYTHON" in os.environ:
        return
    conf = SparkConf() if submitted else None
    if conf is None or (conf.get("spark.master", "").startswith("local") and not conf.contains("spark.pyspark.python")):
        os.environ["PYSPARK_PYTHON"] = sys.executable


def read_properties(path: str | None = None) -> dict[str, str]:
    """Read a Spark properties file: `key value` or `key=value` lines, `#` comments.

    Raises:
        SettingsError: the file cannot be read.
    """
    source = Path(path) if path else packaged_conf("spark-local.conf")
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read ({error.strerror}).") from None
    properties = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line and not line.startswith("#"):
            key, value = line.replace("=", " ", 1).split(None, 1) if "=" in line.split()[0] else line.split(None, 1)
            properties[key] = value.strip()
    return properties


def packaged_conf(name: str) -> Path:
    """Path of a file of conf/, from a checkout or an installed wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / name).is_file():
            return folder / name
    raise SettingsError(f"conf/{name} is not on this machine.", hint="give its path with --properties-file.")
