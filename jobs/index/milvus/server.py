"""A Milvus server or cluster."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.addresses import with_port
from jobs.environment import proxy_before
from jobs.errors import DependencyUnavailable, SettingsError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call, prepare_pymilvus
from jobs.index.milvus.client import MilvusIndex
from jobs.index.milvus.compaction import Compaction
from jobs.index.milvus.import_api import ImportApi, RestImportApi, RpcImportApi
from jobs.index.milvus.versions import detect
from jobs.index.protocol import Features, ImportState
from jobs.settings import Settings

CONNECT_TIMEOUT_S = 20.0


class ServerIndex(MilvusIndex):
    """A server behind ``http(s)://host:port``."""

    def __init__(
        self,
        client: Any,
        where: str,
        features: Features,
        imports: ImportApi | None,
        search_params: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(client, where, features, search_params)
        self._imports = imports

    @classmethod
    def open(cls, settings: Settings) -> ServerIndex:
        """Connect, ask for the version, and choose the way of import that it has."""
        prepare_pymilvus()
        from pymilvus import MilvusClient

        where = with_port(settings.milvus.uri)
        host, port = urlsplit(where).hostname, urlsplit(where).port
        token = bearer(settings)

        def attempt() -> Any:
            return MilvusClient(
                settings.milvus.uri,
                token=token,
                db_name=settings.milvus.database,
                timeout=CONNECT_TIMEOUT_S,
                **tls(settings),
            )

        client = _connected(attempt, where, host or "", port or 0)
        version = call("tell its version", where, lambda: str(client.get_server_version(timeout=CALL_TIMEOUT_S)))
        features = detect(version)
        imports: ImportApi | None = None
        if features.bulk_import and features.files_per_job == 1:
            imports = RpcImportApi(client, where)
        elif features.bulk_import:
            imports = RestImportApi(settings, token, features)
        return cls(client, where, features, imports, settings.milvus.search_params)

    def check_imports(self) -> None:
        """Make sure that bulk imports can be asked for."""
        if self._imports is not None:
            self._imports.check()

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        """Start one bulk-import job of at most ``features.files_per_job`` files."""
        if self._imports is None:
            return super().start_import(name, files, token=token)
        return self._imports.start(name, files, token)

    def import_state(self, job_id: str) -> ImportState:
        """Where the job stands."""
        return super().import_state(job_id) if self._imports is None else self._imports.state(job_id)

    def list_imports(self, name: str) -> list[ImportState]:
        """All jobs of a collection that the server still knows."""
        return super().list_imports(name) if self._imports is None else self._imports.list(name)

    def commit_import(self, job_id: str) -> None:
        """Make the rows of an ``uncommitted`` job visible."""
        return super().commit_import(job_id) if self._imports is None else self._imports.commit(job_id)

    def abort_import(self, job_id: str) -> None:
        """Discard what a job has brought."""
        return super().abort_import(job_id) if self._imports is None else self._imports.abort(job_id)

    def created_at(self, name: str) -> float:
        """When a collection was made, by the server's clock, in seconds since 1970."""
        found = self._call("describe", name, self._client.describe_collection, name, timeout=CALL_TIMEOUT_S)
        # Milvus's timestamps: milliseconds, and behind them 18 bits that count within one.
        return (int(found["created_timestamp"]) >> 18) / 1000

    def compact(self, name: str, *, timeout: float) -> bool:
        """Have deleted rows of a loaded collection dropped from its segments, and look until they are."""
        if not self.features.compaction:
            return False
        Compaction(self, name, self._at(name), timeout).run()
        return True


def _connected(attempt: Callable[[], Any], where: str, host: str, port: int) -> Any:
    try:
        return call("answer", where, attempt, attempts=2)
    except DependencyUnavailable:
        if proxy := proxy_before(host):
            raise DependencyUnavailable(
                f"Milvus did not answer ({where}); {proxy} is set, so that it is asked over that proxy.",
                hint=f"add {host} to no_proxy if this machine reaches it directly; else check that the proxy lets "
                "gRPC through and that the server is up, then run the same command again.",
            ) from None
        # pymilvus says the same of a server that is away and of one that refuses the credentials.
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
            raise DependencyUnavailable(
                f"Something listens at {where}, but no Milvus let us in.",
                hint="check FACE_REINDEX_MILVUS_TOKEN (or …_USER and …_PASSWORD), http against https in milvus.uri, "
                "and that the server is ready; then run the same command again.",
            ) from None
        raise


def tls(settings: Settings) -> dict[str, str]:
    """pymilvus's names for the certificate files; ``https`` in ``milvus.uri`` is what turns TLS on.

    Raises:
        SettingsError: files without https, a certificate without its key, or a file that is not there.
    """
    milvus = settings.milvus
    ca, certificate, key = milvus.ca_file, milvus.client_cert_file, milvus.client_key_file
    if (ca or certificate or key) and not milvus.uri.startswith("https://"):
        raise SettingsError("milvus.ca_file and its like need https:// in milvus.uri.")
    named: dict[str, str] = {}
    if certificate or key:
        # With two of the three pymilvus 3.0.2 drops all of them (client/grpc_handler.py, _setup_grpc_channel), and the
        # server then refuses a client without a certificate.
        if not (ca and certificate and key):
            raise SettingsError(
                "milvus.client_cert_file and milvus.client_key_file go together, and with milvus.ca_file: mutual TLS "
                "needs all three.",
                hint="set the missing one; milvus.ca_file is the authority of the server's certificate.",
            )
        named = {"ca_pem_path": ca, "client_pem_path": certificate, "client_key_path": key}
    elif ca:
        # What pymilvus calls so is the certificate that the server's is checked against.
        named = {"server_pem_path": ca}
    for path in named.values():
        if not Path(path).is_file():
            raise SettingsError(f"{path}: no such file (TLS of milvus.uri).")
    return named


def bearer(settings: Settings) -> str:
    """The token, or user and password as one; empty where none is set."""
    if settings.milvus_token is not None:
        return settings.milvus_token.get_secret_value()
    if settings.milvus_user and settings.milvus_password is not None:
        return f"{settings.milvus_user}:{settings.milvus_password.get_secret_value()}"
    return ""
