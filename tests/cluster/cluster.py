"""A real Milvus cluster on one machine: etcd, an S3 gateway, Kafka, coordinators, two data nodes, two query nodes.

cluster = MilvusCluster(folder)
with temporary(cluster, cluster.stop):
    connect(Settings(milvus={"uri": cluster.uri, "shards": 4}))

Every process can be killed by name (SIGKILL) and started again on its own port and folder.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import tools
from tests.milvus.server import free_ports

BUCKET = "milvus-bucket"
ACCESS_KEY, SECRET_KEY = "cluster-tests", "only-on-loopback"
ROLES = ("rootcoord", "datacoord", "querycoord", "datanode-1", "datanode-2", "indexnode", "querynode-1", "querynode-2",
         "proxy")  # fmt: skip
_SECTIONS = ("rootCoord", "dataCoord", "queryCoord", "dataNode", "indexNode", "queryNode", "proxy")


class MilvusCluster:
    """Start, stop, kill one, start it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        names = ["etcd", "etcd_peer", "s3", "kafka", "kafka_control", *ROLES, "proxy_internal"]
        names += [f"metrics/{role}" for role in ROLES]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._ports['proxy']}"

    @property
    def s3_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def objects(self) -> Path:
        """The folder in which each object of the bucket is a file."""
        return self.folder / "objects" / BUCKET

    def start(self) -> None:
        """Start everything and wait until the proxy is healthy."""
        try:
            self._prepare()
            for name in ("etcd", "s3", "kafka"):
                self.start_one(name)
            for role in ROLES:
                self.start_one(role, wait=role == "proxy")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGKILL for all: nothing here has to be kept."""
        for name in list(self._processes):
            self.kill(name)

    def remove(self) -> None:
        """Delete its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, name: str) -> None:
        """SIGKILL for one process."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(30)

    def start_one(self, name: str, *, wait: bool = True) -> None:
        """Start one process, anew or for the first time."""
        command, env = {"etcd": self._etcd, "s3": self._s3, "kafka": self._kafka}.get(name, lambda: self._role(name))()
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, env=os.environ | env, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        if wait:
            self._wait(name)

    def heal(self) -> None:
        """Start again what was killed, or died."""
        for name in ("etcd", "s3", "kafka", *ROLES):
            if name not in self._processes or self._processes[name].poll() is not None:
                self.start_one(name)

    def memory_mib(self) -> int:
        """Resident memory of all processes."""
        pages = [
            int(Path(f"/proc/{p.pid}/statm").read_text().split()[1])
            for p in self._processes.values()
            if p.poll() is None
        ]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20

    def metric(self, role: str, name: str) -> float:
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[f'metrics/{role}']}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    # -- what each process is started with -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        import milvus

        for part in ("logs", "etcd", f"objects/{BUCKET}", "kafka"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        config = milvus.MilvusServerConfig(data_dir=str(self.folder / "milvus"))
        config.resolve()
        milvus._initialize_data_files(str(self.folder / "milvus"))
        default = yaml.safe_load((self.folder / "milvus" / "configs" / "milvus.yaml").read_text())
        for role in ROLES:
            conf = self.folder / "conf" / role
            conf.mkdir(parents=True, exist_ok=True)
            (conf / "milvus.yaml").write_text(yaml.safe_dump(self._milvus_yaml(default, role)))
            for other in (self.folder / "milvus" / "configs").iterdir():
                if other.name != "milvus.yaml":
                    shutil.copy(other, conf)
        self._prepare_kafka()

    def _milvus_yaml(self, default: dict[str, Any], role: str) -> dict[str, Any]:
        conf = copy.deepcopy(default)
        for section in _SECTIONS:
            # Else each would register under the host's first address.
            conf[section]["ip"] = "127.0.0.1"
        conf["etcd"].update(endpoints=f"127.0.0.1:{self._ports['etcd']}", use={"embed": False})
        conf["minio"].update(
            address="127.0.0.1", port=self._ports["s3"], accessKeyID=ACCESS_KEY, secretAccessKey=SECRET_KEY,
            useSSL=False, bucketName=BUCKET, rootPath="files",
        )  # fmt: skip
        conf["mq"] = {"type": "kafka"}
        conf["kafka"] = {"brokerList": f"127.0.0.1:{self._ports['kafka']}"}
        conf["common"]["storageType"] = "remote"
        conf["common"]["session"]["ttl"] = 10  # how long a dead node is taken for alive
        conf["localStorage"]["path"] = str(self.folder / "local" / role)
        conf["log"]["file"]["rootPath"] = ""
        conf["proxy"].update(port=self._ports["proxy"], internalPort=self._ports["proxy_internal"])
        conf["queryCoord"].update(checkInterval=100, distPullInterval=100)
        return conf

    def _role(self, role: str) -> tuple[list[str], dict[str, str]]:
        kind = role.split("-", maxsplit=1)[0]
        env = {
            "LD_LIBRARY_PATH": str(self.folder / "milvus" / "bin"),
            "MILVUSCONF": str(self.folder / "conf" / role),
            "DEPLOY_MODE": "CLUSTER",
            "METRICS_PORT": str(self._ports[f"metrics/{role}"]),
            f"{kind.upper()}_PORT": str(self._ports[role]),
        }
        return [str(self.folder / "milvus" / "bin" / "milvus"), "run", kind, "-alias", role], env

    def _etcd(self) -> tuple[list[str], dict[str, str]]:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "etcd_peer"))
        return [
            str(tools.etcd()), "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}",
        ], {}  # fmt: skip

    def _s3(self) -> tuple[list[str], dict[str, str]]:
        command = [str(tools.s3_gateway()), "--port", f"127.0.0.1:{self._ports['s3']}", "posix", "objects"]
        return command, {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}

    def _kafka(self) -> tuple[list[str], dict[str, str]]:
        return [*self._java(), "kafka.Kafka", str(self.folder / "kafka.properties")], {}

    def _java(self) -> list[str]:
        return ["java", "-Xmx512m", "-cp", f"{tools.kafka()}/*"]

    def _prepare_kafka(self) -> None:
        properties = self.folder / "kafka.properties"
        if properties.exists():
            return
        plain, control = self._ports["kafka"], self._ports["kafka_control"]
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{control}",
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{control}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "kafka",
            "num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "message.max.bytes": 10_485_760,
            "group.initial.rebalance.delay.ms": 0,
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-t", "ZmFjZS1yZWluZGV4LXRlcw", "-c", str(properties)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _wait(self, name: str, timeout: float = 120) -> None:
        asked: Callable[[], bool] = lambda: self._listens(self._ports[name])  # noqa: E731 - one of two ways to ask
        if name in ROLES:
            asked = lambda: self._healthy(name)  # noqa: E731
        deadline = time.monotonic() + timeout
        while not asked():
            if self._processes[name].poll() is not None:
                raise RuntimeError(f"{name} ended at start; see {self.folder}/logs/{name}.log")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} was not ready after {timeout} s; see {self.folder}/logs/{name}.log")
            time.sleep(0.2)

    def _healthy(self, role: str) -> bool:
        url = f"http://127.0.0.1:{self._ports[f'metrics/{role}']}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return b"OK" in answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @staticmethod
    def _listens(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False
