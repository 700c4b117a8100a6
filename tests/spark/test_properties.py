"""Spark itself says of each property, the offered ones included, that it knows it; and spark-submit takes the files."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.embedding.chunks import gpu_profile
from jobs.session import read_properties
from jobs.settings import load_settings

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf").glob("spark-*.conf"))
# Entries are on record once the object that holds them is loaded.
HOLDERS = [
    "org.apache.spark.internal.config.package$",
    "org.apache.spark.internal.config.Network$",
    "org.apache.spark.internal.config.Python$",
    "org.apache.spark.internal.config.UI$",
    "org.apache.spark.sql.internal.SQLConf$",
    "org.apache.spark.sql.internal.StaticSQLConf$",
    "org.apache.spark.deploy.k8s.Config$",
    "org.apache.spark.deploy.yarn.config.package$",
    "org.apache.spark.sql.delta.sources.DeltaSQLConf$",
]
# What Spark reads without an entry of its own, by its documentation: families of keys, and the launcher's.
FAMILIES = re.compile(
    r"spark\.(master|app\.name|sql\.catalog\.spark_catalog|executorEnv\.\w+|executor\.resource\.gpu\.\w+"
    r"|yarn\.appMasterEnv\.\w+|kubernetes\.(driver|executor)\.secretKeyRef\.\w+"
    r"|network\.crypto\.(authEngineVersion|cipher)|org\.apache\.spark\.ui\.JWSFilter\.param\.secretKey"
    r"|kubernetes\.authenticate\.driver\.serviceAccountName"
    r"|kubernetes\.executor\.volumes\.persistentVolumeClaim\.[\w-]+\.(options|mount)\.\w+"
    r"|delta\.logStore\.s3a\.impl|io\.delta\.storage\.S3DynamoDBLogStore\.ddb\.region"
    r"|databricks\.delta\.properties\.defaults\.checkpointInterval)"
)
# Parquet's own, on its writer's and reader's properties; `#content`: for that column alone.
PARQUET = re.compile(
    r"parquet\.(block\.size|page\.size\.row\.check\.(min|max)|(enable\.dictionary|column\.statistics\.enabled)#content)"
)


def said(path: Path) -> dict[str, str]:
    """Every property of a file: those that hold, and those that it offers behind a `#`."""
    lines = re.findall(r"^(?:# )?(spark\.\S+) {2,}(\S.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(lines)


def test_spark_knows_every_property(spark: SparkSession) -> None:
    jvm: Any = spark._jvm
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    for name in HOLDERS:
        jvm.java.lang.Class.forName(name, True, loader)
    find = jvm.org.apache.spark.internal.config.ConfigEntry.findEntry
    hadoop = jvm.org.apache.hadoop.conf.Configuration()
    assert find("spark.executor.coers") is None
    assert hadoop.get("fs.s3a.fast.upload.bufer") is None
    unknown, refused = set(), set()
    for path in FILES:
        for key, value in said(path).items():
            entry = find(key)
            if key.startswith("spark.hadoop."):
                name = key.removeprefix("spark.hadoop.")
                if not PARQUET.fullmatch(name) and name not in WITHOUT_DEFAULT and hadoop.get(name) is None:
                    unknown.add(key)
            elif entry is not None:
                try:
                    entry.valueConverter().apply(value)
                except Exception:
                    refused.add((path.name, key, value))
            elif not FAMILIES.fullmatch(key):
                unknown.add(key)
    assert (unknown, refused) == (set(), set())


# Hadoop's core-default.xml names these and gives them no value.
WITHOUT_DEFAULT = {"fs.s3a.endpoint", "fs.s3a.endpoint.region"}
START = """
import json
from pyspark import SparkContext
print(json.dumps(dict(SparkContext.getOrCreate().getConf().getAll())))
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Spark started by spark-submit with each file: on this machine, and without fetching Delta once more."""
    import pyspark

    script = tmp_path_factory.mktemp("submit") / "show.py"
    script.write_text(START)
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        options = ["--master", "local[1]", "--deploy-mode", "client"]
        options += ["--conf", "spark.jars.packages=", "--conf", "spark.ui.enabled=false"]
        return subprocess.run(
            [str(submit), "--properties-file", str(path), *options, str(script)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([path.name for path in FILES], pool.map(run, FILES), strict=True))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_spark_submit_accepts_the_file_and_reads_what_we_read(
    submitted: dict[str, subprocess.CompletedProcess[str]], path: Path
) -> None:
    done = submitted[path.name]
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Ignoring non-Spark config" not in done.stderr
    read = json.loads(done.stdout.strip().splitlines()[-1])
    ours = read_properties(str(path))
    overridden = {"spark.master", "spark.submit.deployMode", "spark.jars.packages", "spark.ui.enabled"}
    for key in set(ours) - overridden:
        if key == "spark.driver.extraJavaOptions":
            assert ours[key] in read[key], "Spark adds its own around them"
        else:
            assert read[key] == ours[key], key


def test_executors_that_dynamic_allocation_starts_ask_kubernetes_for_the_gpu(spark: SparkSession) -> None:
    """Without a vendor Spark cannot say `nvidia.com/gpu` in a pod, and refuses the profile."""
    settings = load_settings(overrides=["executor.gpus_per_task=1", "executor.gpu_discovery_script=./gpu-discovery.sh"])
    assert "gpu" not in gpu_profile(spark, settings).executorResources
    # A running session's allocation cannot be changed.
    dynamic: Any = SimpleNamespace(conf=SimpleNamespace(get=lambda *_: "true"))
    asked = gpu_profile(dynamic, settings).executorResources["gpu"]
    assert (asked.amount, asked.discoveryScript, asked.vendor) == (1, "./gpu-discovery.sh", "nvidia.com")
