"""One real cluster for the session, and nights that run against it in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.index.milvus.connect import connect
from jobs.index.protocol import VectorIndex
from jobs.session import read_properties
from jobs.settings import Settings
from tests.cluster.cluster import ACCESS_KEY, BUCKET, SECRET_KEY, MilvusCluster
from tests.conftest import PURPOSE
from tests.milvus.server import temporary

SHARDS = 4
# The parts of the AWS SDK that s3a uses: hadoop-aws itself asks for the bundle of everything, 690 MB.
AWS_SDK = "2.35.4"
PACKAGES = ("org.apache.hadoop:hadoop-aws:3.5.0", f"software.amazon.awssdk:s3-transfer-manager:{AWS_SDK}",
            f"software.amazon.awssdk:sts:{AWS_SDK}", f"software.amazon.awssdk:apache-client:{AWS_SDK}")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusCluster]:
    cluster = MilvusCluster(tmp_path_factory.mktemp("cluster"))
    with temporary(cluster, cluster.stop):
        yield cluster
        print(f"\ncluster: {cluster.memory_mib()} MiB resident at the end")


@pytest.fixture
def night(cluster: MilvusCluster, tmp_path: Path) -> Iterator[Night]:
    cluster.heal()
    night = Night(cluster, tmp_path)
    yield night
    night.clean()


@dataclass
class Night:
    """Settings and processes of tests/cluster/night.py for one alias of its own."""

    cluster: MilvusCluster
    folder: Path
    alias: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")

    def settings(self, **milvus: Any) -> Settings:
        return Settings.model_validate(self._settings(**milvus))

    def _settings(self, **milvus: Any) -> dict[str, Any]:
        return {
            "warehouse": str(self.folder / "warehouse"),
            "governance": {"purposes": [PURPOSE], "allowed_purposes": [PURPOSE]},
            "staging": {"path": f"s3a://{BUCKET}/staging/{self.alias}", "rows_per_file": 5_000},
            "verify": {"recall_sample": 50},
            "milvus": {
                "uri": self.cluster.uri, "alias": self.alias, "shards": SHARDS, "data_nodes": 2, "import_jobs": 4,
                "import_timeout_s": 60, "ready_timeout_s": 180, "watch_s": 2, **milvus,
            },
        }  # fmt: skip

    def index(self) -> VectorIndex:
        return connect(self.settings())

    def start(self, run_id: str, rows: int, *arguments: str, **milvus: Any) -> subprocess.Popen[str]:
        """A night as a process; it runs until it is done or killed."""
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(self._settings(**milvus)))
        properties = read_properties()
        packages = ",".join((properties["spark.jars.packages"], *PACKAGES))
        excludes = ",".join((properties["spark.jars.excludes"], "software.amazon.awssdk:bundle"))
        (self.folder / "spark.conf").write_text(
            f"\nspark.jars.packages {packages}\nspark.jars.excludes {excludes}\nspark.master local[2]\n"
            f"spark.hadoop.fs.s3a.endpoint {self.cluster.s3_endpoint}\nspark.hadoop.fs.s3a.path.style.access true\n"
            "spark.hadoop.fs.s3a.endpoint.region us-east-1\nspark.sql.shuffle.partitions 4\n"
        )
        aws = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
               "AWS_ENDPOINT_URL": self.cluster.s3_endpoint}  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.night", str(self.folder / "settings.yaml"), "--run-id", run_id,
             "--rows", str(rows), *arguments],
            env=os.environ | aws, stdout=subprocess.PIPE, stderr=(self.folder / f"{run_id}.log").open("a"), text=True,
            start_new_session=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str], timeout: float = 420) -> dict[str, Any]:
        """Wait for its end; its result, which a failure does not have."""
        out, _ = process.communicate(timeout=timeout)
        logs = "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
        assert process.returncode == 0, logs
        result: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return result

    def run(self, run_id: str, rows: int, *arguments: str, **milvus: Any) -> dict[str, Any]:
        return self.finish(self.start(run_id, rows, *arguments, **milvus))

    def until(self, sign: str, run_id: str, timeout: float = 180) -> None:
        """Wait until the log of a night shows ``sign``."""
        wait_for(lambda: sign in (self.folder / f"{run_id}.log").read_text(), timeout)

    def staged(self) -> list[Path]:
        """Staged files, as the object store keeps them."""
        return sorted((self.cluster.objects / "staging" / self.alias).rglob("*.parquet"))

    def keys(self) -> np.ndarray:
        """The keys of all staged files."""
        return np.concatenate([pq.read_table(path, columns=["face_id"]).column(0).to_numpy() for path in self.staged()])

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        """SIGKILL for the driver, its Java and its Python workers."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def clean(self) -> None:
        self.cluster.heal()
        index = self.index()
        index.drop_alias(self.alias)
        for name in index.list_collections(self.alias):
            index.drop(name)
        index.close()


def wait_for(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to pass")
        time.sleep(0.1)
