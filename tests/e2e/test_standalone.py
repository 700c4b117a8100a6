"""The main job by spark-submit on a standalone cluster: zip by --py-files, model shipped, GPUs scheduled, SIGKILL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.pictures import Picture
from jobs.session import read_properties
from tests.e2e.line import prepare, run_job
from tests.e2e.standalone import Cluster, standalone_cluster

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
# As conf/ has it for a standalone cluster; the secret stands in a properties file of whoever uses it.
SECURITY = {
    **{key: value for key, value in read_properties(str(ROOT / "conf" / "spark-standalone.conf")).items()
       if key.startswith(("spark.authenticate", "spark.network.crypto.", "spark.io.", "spark.acls.", "spark.ui.kill"))},
    "spark.authenticate.secret": "a-secret-of-these-tests",
}  # fmt: skip
CONF = {
    **SECURITY,
    "spark.executor.memory": "2g",
    "spark.executor.cores": "1",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.resource.gpu.amount": "1",
    "spark.pyspark.python": sys.executable,
    "spark.pyspark.driver.python": sys.executable,
}
PROBE = """
from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

def probe(batches):
    import pyarrow as pa, udfs
    addresses = ",".join(TaskContext.get().resources()["gpu"].addresses)
    for _ in batches:
        yield pa.RecordBatch.from_arrays([pa.array([addresses]), pa.array([udfs.__file__])], names=["gpu", "file"])

spark = SparkSession.builder.getOrCreate()
profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", 1)).build
rows = spark.range(0, 8, 1, 4).mapInArrow(probe, "gpu string, file string", profile=profile).collect()
print("PROBE", sorted({r["gpu"] for r in rows}), all(".zip" in r["file"] for r in rows))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster"), gpus=(("0",), ("1",)), properties=SECURITY) as running:
        yield running


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The zip that `--py-files` ships, built as `make zip` does."""
    subprocess.run([sys.executable, "setup.py", "-q", "pyfiles"], cwd=ROOT, check=True)
    built = max((ROOT / "dist").glob("face_reindex-*.zip"), key=lambda p: p.stat().st_mtime)
    return str(shutil.copy(built, tmp_path_factory.mktemp("zip") / built.name))


def command(cluster: Cluster, package: str, job: str, *arguments: str, conf: Mapping[str, str] = CONF) -> list[str]:
    given = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    submit = [str(cluster.spark_home / "bin" / "spark-submit"), "--master", cluster.url]
    files = ["--properties-file", str(ROOT / "conf" / "spark-local.conf"), "--py-files", package]
    return [*submit, *files, *given, str(ROOT / "jobs" / f"{job}.py"), *arguments]


def run(cluster: Cluster, package: str, job: str, *arguments: str, tmp: Path) -> dict[str, object]:
    # From another folder, so that nothing is found because it happens to lie in the current one.
    tmp.mkdir()
    done = subprocess.run(
        command(cluster, package, job, "--json", *arguments),
        cwd=cluster.folder,
        env={**cluster.env, "TMPDIR": str(tmp)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp.glob("face-reindex-*")), "a job leaves no file of its own behind"
    result: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_the_zip_reaches_the_executors_and_gpus_are_scheduled(cluster: Cluster, package: str, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    done = cluster.submit(
        tmp_path / "probe.py", conf={**CONF, "spark.ui.enabled": "false"}, options=["--py-files", package]
    )
    assert "PROBE ['0', '1'] True" in done.stdout, done.stderr[-2000:]


ARCHIVED = """
import sys
from pyspark import SparkContext

def look(_):
    import only_there
    return sys.prefix.rpartition("/")[2], only_there.WHERE

print("ARCHIVED", SparkContext.getOrCreate().parallelize([0], 1).map(look).collect())
"""


@pytest.mark.faults
def test_a_job_without_the_clusters_secret_says_what_to_set(cluster: Cluster, package: str) -> None:
    conf = {key: value for key, value in CONF.items() if key != "spark.authenticate.secret"}
    done = subprocess.run(
        command(cluster, package, "plan", conf=conf),
        cwd=cluster.folder, env=cluster.env, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "this cluster needs a secret" in done.stderr.strip().splitlines()[-1]


def test_an_environment_archive_is_unpacked_beside_each_executor(cluster: Cluster, tmp_path: Path) -> None:
    """As `make env-archive` packs one and conf/spark-yarn.conf names it, but with one small module in it."""
    venv_pack = pytest.importorskip("venv_pack", reason="pip install venv-pack")
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "only_there.py").write_text("WHERE = 'in the archive'\n")
    archive = venv_pack.pack(prefix=str(environment), output=str(tmp_path / "environment.tar.gz"))
    (tmp_path / "look.py").write_text(ARCHIVED)
    conf = {**CONF, "spark.pyspark.python": "./environment/bin/python", "spark.ui.enabled": "false"}
    done = cluster.submit(tmp_path / "look.py", conf=conf, options=["--archives", f"{archive}#environment"])
    assert "ARCHIVED [('environment', 'in the archive')]" in done.stdout, done.stderr[-2000:]


@pytest.mark.faults
@pytest.mark.usefixtures("spark")
def test_killed_in_the_middle_and_resumed_it_ends_exact(
    cluster: Cluster,
    package: str,
    pictures: tuple[Path, list[Picture]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [p for p in pictures[1] if p.kind in {"single_face", "truncated"}][:30]
    for picture in chosen:
        (tmp_path / "pictures" / picture.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0] / picture.path, tmp_path / "pictures" / picture.path)
    home = tmp_path / "line"
    # The addresses are made up: the tasks that get one compute on their processors.
    executor = {"chunk_images": 1, "gpus_per_task": 1, "without_gpu": "processor"}
    config = prepare(home, chosen, executor=executor, tables={"part_images": 1}, lease={"ttl_s": 900})
    source = ("--source", str(tmp_path / "pictures"), "--batch", str(home / "demo.batch.yaml"))

    def here(name: str, *arguments: str) -> tuple[int, dict[str, object]]:
        """A job in this process: the warehouse is the same folder."""
        return run_job(name, config, *arguments, read=lambda: capsys.readouterr().out)

    assert here("ingest", *source, "--basis", str(home / "basis.jsonl"))[0] == 0
    arguments = ("--config", str(config), "--run-id", "night")
    killed_after(
        home / "warehouse" / "embeddings" / "_delta_log", command(cluster, package, "reindex", *arguments), cluster
    )

    # Another run is refused while the dead one's lease lasts; the same run goes on at once.
    code, other = here("reindex", "--run-id", "other")
    assert code == 5
    assert "Run night is writing this warehouse" in str(other["message"])
    result = run(cluster, package, "reindex", *arguments, tmp=tmp_path / "tmp")
    counts = result["counts"]
    assert isinstance(counts, dict)
    assert counts["images"] == len(chosen) == sum(counts["statuses"].values())
    # In one of the portraits MTCNN sees a second face (0.84), which the record of one person cannot cover.
    assert counts["statuses"] == {
        "embedded": sum(p.expected == "embedded" for p in chosen) - 1,
        "uncovered_faces": 1,
        **({"broken": n} if (n := sum(p.expected == "broken" for p in chosen)) else {}),
    }
    proof = result["proof"]
    assert isinstance(proof, dict)
    assert proof["rows_found"] == counts["faces"]
    assert proof["keys_duplicated"] == 0


def killed_after(log: Path, command: list[str], cluster: Cluster) -> None:
    """Start a job and SIGKILL all of it once the first chunk of faces is committed (and not the last)."""
    process = subprocess.Popen(
        command, cwd=cluster.folder, env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 900
    # Version 0 creates the table, version 1 is the first chunk.
    while not (log / f"{1:020}.json").exists():
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline, "no chunk was committed in time"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
