"""A server's ports and its life: one port for gRPC and HTTP, or with TLS one for each; stop, and start again."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent import futures
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc  # type: ignore[import-untyped]  # it ships no types

from tests.milvus.servers.core import Core
from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.rest import Handler, RestApi
from tests.milvus.servers.rpc import add_service

HOST = "127.0.0.1"
BUFFER = 2**16
HTTP2 = b"PRI"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: RestApi, port: int, tls: Path | None, *, mutual: bool) -> None:
        super().__init__((HOST, port), Handler)
        self.api = api
        if tls:
            self.socket = _tls_context(tls, mutual=mutual).wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""


class _SharedPort:
    """Passes connections on by their first bytes, as the servers do: HTTP/2 to gRPC, anything else to HTTP."""

    def __init__(self, port: int, choose: Callable[[bytes], int]) -> None:
        self._choose = choose
        self._listener = socket.create_server((HOST, port))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        with contextlib.suppress(OSError):
            # Closing alone leaves a thread waiting in `accept`, and the port with it.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            first = client.recv(BUFFER)
            if not first:
                return
            with socket.create_connection((HOST, self._choose(first))) as server:
                pair = {client: server, server: client}
                self._open.update(pair)
                try:
                    server.sendall(first)
                    _copy(pair)
                finally:
                    self._open.difference_update(pair)


def _copy(pair: dict[socket.socket, socket.socket]) -> None:
    """Bytes of each to the other, until one ends."""
    with selectors.DefaultSelector() as ready:
        for each in pair:
            ready.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                side: socket.socket = key.fileobj  # type: ignore[assignment]
                data = side.recv(BUFFER)
                if not data:
                    return
                pair[side].sendall(data)


def _tls_context(folder: Path, *, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if mutual:
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class MilvusDouble:
    """A server of a version.

    Args:
        profile: the version.
        speed: how many seconds of the server pass in one of ours.
        authorization: whether users and grants count.
        tls: a folder with server.pem and server.key; REST then has its own port, `rest_uri`.
        mutual: with TLS, whether clients have to show a certificate that ca.pem of this folder has signed.
        bucket: a folder that stands for the server's bucket; without one it has local storage.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        speed: float = 50.0,
        authorization: bool = False,
        tls: Path | None = None,
        mutual: bool = False,
        bucket: Path | None = None,
    ) -> None:
        self.core = Core(profile, speed=speed, authorization=authorization, bucket=bucket)
        self._tls, self._mutual = tls, mutual
        self._port = self._rest_port = 0
        self._stops: list[Callable[[], object]] = []

    @property
    def uri(self) -> str:
        """Where gRPC is, and without TLS REST as well."""
        return f"{'https' if self._tls else 'http'}://{HOST}:{self._port}"

    @property
    def rest_uri(self) -> str:
        """Where REST is."""
        return f"{'https' if self._tls else 'http'}://{HOST}:{self._rest_port if self._tls else self._port}"

    def start(self) -> None:
        """Listen, on the ports of the last time."""
        rpc = grpc.server(futures.ThreadPoolExecutor(8, thread_name_prefix="milvus-double"))
        add_service(rpc, self.core)
        if self._tls:
            pair = ((self._tls / "server.key").read_bytes(), (self._tls / "server.pem").read_bytes())
            ca = (self._tls / "ca.pem").read_bytes() if self._mutual else None
            credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=self._mutual)
            rpc_port = rpc.add_secure_port(f"{HOST}:0", credentials)
        else:
            rpc_port = rpc.add_insecure_port(f"{HOST}:0")
        rpc.start()
        http = _Http(RestApi(self.core), self._rest_port, self._tls, mutual=self._mutual)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        http_port = http.server_address[1]
        shared = not self._tls
        front = _SharedPort(self._port, lambda first: http_port if shared and not first.startswith(HTTP2) else rpc_port)
        self._port = front.port
        if self._tls:
            self._rest_port = http_port
        self._stops = [front.close, lambda: rpc.stop(0).wait(), http.shutdown, http.server_close]

    def stop(self) -> None:
        """Listen no more. What the server keeps, it keeps."""
        for stop in self._stops:
            stop()
        self._stops = []

    def restart(self, *, starting_s: float = 0.0) -> None:
        """Stop and start; for ``starting_s`` seconds of the server it then says that it is not ready."""
        self.stop()
        self.core.starting_until = self.core.clock.now() + starting_s
        self.start()

    def __enter__(self) -> MilvusDouble:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
