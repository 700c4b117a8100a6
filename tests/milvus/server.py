"""The real Milvus server of the `milvus` wheel, for tests, benches and whole-job tests.

with MilvusStandalone(folder) as server:
    connect(Settings(milvus={"uri": server.uri}))
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

PORTS = (
    "proxy_port",
    "proxy_internal_port",
    "root_coord_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)

PACE = {
    "checkInterval": 100,  # ms between looks at what is to be loaded; 1000
    "distPullInterval": 100,  # ms between looks at what is loaded; 500
}
"""The server's defaults are for large clusters: tests would wait for its timers most of the time."""


class MilvusStandalone:
    """One server over one folder: start, stop, SIGKILL, start again on the same port with the same data.

    The wheel's own launcher is not used to run it: it picks new ports when it starts again, waits for one second
    before it kills, and changes the working directory of the whole process. Its unpacking and its configuration are.
    """

    def __init__(
        self, folder: Path, *, authorization: bool = False, tls: Path | None = None, gc_s: int | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._authorization = authorization
        # Seconds until a compacted segment's files are removed; the default is hours.
        self._gc_s = gc_s
        # A folder with server.pem, server.key and ca.pem.
        self._tls = tls
        self._ports = dict(zip((*PORTS, "metrics", "etcd_port", "etcd_peer"), free_ports(len(PORTS) + 3), strict=True))

    @property
    def uri(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._ports['proxy_port']}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 120) -> None:
        """Start and wait until it says that it is healthy."""
        self._prepare()
        env = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._ports["metrics"]),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "MILVUSCONF": str(self.folder / "configs"),
            "LD_LIBRARY_PATH": str(self.folder / "bin"),
        }
        with (self.folder / "logs" / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.folder / "bin" / "milvus"), "run", "standalone"],
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_healthy(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 5) -> None:
        """Ask it to end; kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def remove(self) -> None:
        """Delete its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> MilvusStandalone:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _prepare(self) -> None:
        if (self.folder / "configs" / "milvus.yaml").exists():
            return
        import milvus

        self.folder.mkdir(parents=True, exist_ok=True)
        ports = {name: port for name, port in self._ports.items() if name in (*PORTS, "etcd_port")}
        config = milvus.MilvusServerConfig(data_dir=str(self.folder), **ports)
        config.set("authorization_enabled", self._authorization)
        config.resolve()
        milvus._initialize_data_files(str(self.folder))
        self._configure()

    def _configure(self) -> None:
        # Every role would register under the host's first address, and every server's etcd take port 2379.
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd_port", "etcd_peer"))
        etcd = self.folder / "configs" / "etcd.yaml"
        etcd.write_text(
            f"name: default\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n"
            f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n"
        )
        yaml = self.folder / "configs" / "milvus.yaml"
        text = re.sub(r"(?m)^  ip: #.*$", "  ip: 127.0.0.1", yaml.read_text())
        text = re.sub(r"(?m)^  use:$", f"  config:\n    path: {etcd}\n  use:", text, count=1)
        for name, value in PACE.items():
            text, found = re.subn(rf"(?m)^(  {name}): \d+", rf"\1: {value}", text)
            if not found:
                raise RuntimeError(f"milvus.yaml has no {name}")
        if self._gc_s is not None:
            # Not missingTolerance: it would remove what a compaction has written and not yet registered.
            for name in ("interval", "dropTolerance"):
                text = re.sub(rf"(?m)^(    {name}): \d+", rf"\1: {self._gc_s}", text)
        if self._tls:
            text = re.sub(r"(?m)^    tlsMode: 0", "    tlsMode: 1", text)
            for key, name in (
                ("serverPemPath", "server.pem"),
                ("serverKeyPath", "server.key"),
                ("caPemPath", "ca.pem"),
            ):
                text = re.sub(rf"(?m)^  {key}: .*$", f"  {key}: {self._tls / name}", text)
        yaml.write_text(text)

    def _wait_healthy(self, timeout: float) -> None:
        url = f"http://127.0.0.1:{self._ports['metrics']}/healthz"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise RuntimeError(f"milvus ended at start; see {self.folder}/logs/milvus.log")
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if b"OK" in answer.read():
                        return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"milvus was not healthy after {timeout} s; see {self.folder}/logs/milvus.log")


class _Server(Protocol):
    def start(self) -> None: ...
    def remove(self) -> None: ...


Server = TypeVar("Server", bound=_Server)


@contextlib.contextmanager
def temporary(server: Server, end: Callable[[], None]) -> Iterator[Server]:
    """``server`` from its start until ``end`` and the removal of its folder."""
    server.start()
    try:
        yield server
    finally:
        end()
        server.remove()


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on just now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
