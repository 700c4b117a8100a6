"""A Spark standalone cluster on loopback, from the Spark inside the pip-installed pyspark.

One master and two workers, each a process of its own, so that jobs are serialised, shipped and scheduled as on a real
cluster. Each worker's discovery script reports a made-up GPU address, so GPU scheduling is exercised without a GPU.

    with standalone_cluster(tmp_path) as cluster:
        done = cluster.submit("jobs/status.py", "--json", conf={"spark.executor.resource.gpu.amount": "1"})
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its URL, the environment its clients need, and where its logs are."""

    url: str
    web_url: str
    env: dict[str, str]
    folder: Path
    spark_home: Path
    processes: list[subprocess.Popen[bytes]] = field(repr=False)

    def submit(
        self,
        script: str | Path,
        *arguments: str,
        conf: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        cwd: Path | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``spark-submit`` against this cluster and return what it printed; nothing is raised for its exit code.

        ``options`` go before the script (``["--py-files", "x.zip"]``), ``arguments`` after it.
        """
        command = [str(self.spark_home / "bin" / "spark-submit"), "--master", self.url, *options]
        for key, value in (conf or {}).items():
            command += ["--conf", f"{key}={value}"]
        command += [str(script), *arguments]
        with subprocess.Popen(
            command,
            cwd=cwd or self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as driver:
            try:
                out, err = driver.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _kill_trees([driver.pid])
                raise
        return subprocess.CompletedProcess(command, driver.returncode, out, err)

    def state(self) -> dict[str, Any]:
        """The master's own view: workers, their cores, memory and resources, running applications."""
        with urllib.request.urlopen(f"{self.web_url}/json/", timeout=5) as response:  # noqa: S310  (loopback only)
            return dict(json.load(response))

    def logs(self) -> str:
        """The end of each daemon's log, for a failure message."""
        parts = []
        for log in sorted(self.folder.glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(parts)


@contextmanager
def standalone_cluster(
    folder: Path,
    *,
    gpus: Sequence[Sequence[str]] = (("0",), ("1",)),
    cores: int = 1,
    memory: str = "3g",
    properties: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Start a master and one worker for each entry of ``gpus``; stop all of it on the way out, whatever happened.

    Args:
        folder: where logs, work and shuffle files go; the caller owns and removes it.
        gpus: GPU addresses that each worker reports; an empty sequence makes a worker without a GPU.
        cores: cores of each worker.
        memory: memory of each worker for executors, in Spark's notation.
        properties: Spark properties of master and workers, in a file as they may be secret.

    Raises:
        RuntimeError: the cluster was not complete in time; the message ends with the daemons' logs.
    """
    home = _spark_home()
    env = _environment(folder, home)
    port, web_port = _free_ports(2)
    (folder / "daemons.conf").write_text("".join(f"{key} {value}\n" for key, value in (properties or {}).items()))
    cluster = Cluster(f"spark://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{web_port}", env, folder, home, [])
    try:
        _start(
            cluster,
            "master",
            ["org.apache.spark.deploy.master.Master", "--port", str(port), "--webui-port", str(web_port)],
            {"SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false"},
        )
        _wait(cluster, workers=0)
        for number, addresses in enumerate(gpus):
            _start_worker(cluster, number, addresses, cores, memory)
        _wait(cluster, workers=len(gpus))
        yield cluster
    finally:
        _kill_trees([process.pid for process in cluster.processes])
        for process in cluster.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_TIMEOUT_S)


def _start_worker(cluster: Cluster, number: int, addresses: Sequence[str], cores: int, memory: str) -> None:
    name = f"worker{number}"
    options = []
    if addresses:
        script = cluster.folder / f"{name}-gpu.sh"
        script.write_text(f"#!/bin/sh\necho '{json.dumps({'name': 'gpu', 'addresses': list(addresses)})}'\n")
        script.chmod(0o755)
        options = [
            f"-Dspark.worker.resource.gpu.amount={len(addresses)}",
            f"-Dspark.worker.resource.gpu.discoveryScript={script}",
        ]
    arguments = ["org.apache.spark.deploy.worker.Worker", "--webui-port", "0", "--cores", str(cores)]
    arguments += ["--memory", memory, "--work-dir", str(cluster.folder / name), cluster.url]
    _start(cluster, name, arguments, {"SPARK_WORKER_OPTS": " ".join(options)})


def _start(cluster: Cluster, name: str, arguments: Sequence[str], extra_env: Mapping[str, str]) -> None:
    main, *rest = arguments
    command = [str(cluster.spark_home / "bin" / "spark-class"), main, "--host", LOOPBACK]
    command += ["--properties-file", str(cluster.folder / "daemons.conf"), *rest]
    with (cluster.folder / f"{name}.log").open("wb") as log:
        cluster.processes.append(
            subprocess.Popen(
                command,
                env={**cluster.env, **extra_env},
                cwd=cluster.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )


def _wait(cluster: Cluster, *, workers: int) -> None:
    """Wait until the master answers and that many workers are alive."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in cluster.processes):
            raise RuntimeError(f"a daemon of the Spark cluster stopped at start\n{cluster.logs()}")
        with suppress(urllib.error.URLError, OSError, ValueError):
            if cluster.state()["aliveworkers"] >= workers:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the Spark cluster was not up after {START_TIMEOUT_S:.0f} s\n{cluster.logs()}")


def _spark_home() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent


def _environment(folder: Path, home: Path) -> dict[str, str]:
    """The caller's environment with every SPARK_* of it replaced: a Spark installed elsewhere must not mix in."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    conf = folder / "spark-conf"
    local = folder / "local"
    for path in (conf, local):
        path.mkdir(parents=True, exist_ok=True)
    return {
        **env,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(conf),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_LOCAL_DIRS": str(local),
        "SPARK_DAEMON_MEMORY": "512m",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _kill_trees(roots: Sequence[int]) -> None:
    """End these processes and every descendant: politely first, for good after a while.

    A process group is not enough, for PySpark's daemon leaves its executor's group.
    """
    targets = {pid: start for root in roots for pid, start in _descendants(root).items()}
    for sig, patience in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
        for pid in _alive(targets):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sig)
        deadline = time.monotonic() + patience
        while _alive(targets) and time.monotonic() < deadline:
            time.sleep(0.1)


def _alive(targets: Mapping[int, str]) -> list[int]:
    """Those still running; a number that the system gave to a new process does not count."""
    return [pid for pid, start in targets.items() if (stat := _stat(pid)) and stat[2] == start and stat[0] != "Z"]


def _descendants(root: int) -> dict[int, str]:
    """Process id → start time, of ``root`` and everything below it."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        stat = stats.get(pid)
        if stat and pid not in found:
            found[pid] = stat[2]
            waiting += [child for child, other in stats.items() if other and other[1] == pid]
    return found


def _stat(pid: int) -> tuple[str, int, str] | None:
    """State, parent and start time of a process; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), fields[19]
