"""milvus-lite: the embedded default. One process at a time may open its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.errors import DependencyUnavailable, SettingsError
from jobs.index.milvus_base import MilvusIndex
from jobs.index.milvus_calls import CALL_TIMEOUT_S, quiet_pymilvus
from jobs.index.milvus_types import EMBEDDED
from jobs.settings import Settings


class EmbeddedIndex(MilvusIndex):
    """A milvus-lite folder, opened by this process alone."""

    def __init__(self, path: Path, search_params: Mapping[str, int] | None = None) -> None:
        self._path = path
        client = _open(path)
        version = client.get_server_version(timeout=CALL_TIMEOUT_S)
        super().__init__(client, str(path), replace(EMBEDDED, version=version), search_params)

    @classmethod
    def open(cls, settings: Settings) -> EmbeddedIndex:
        """Open, or make, the folder that ``milvus.uri`` names."""
        path = Path(settings.milvus.uri).expanduser()
        if path.suffix != ".db":
            raise SettingsError(
                f"milvus.uri '{settings.milvus.uri}': an embedded index is a path that ends in .db.",
                hint="use for example face-index.db, or http://host:port for a server.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path.resolve(), settings.milvus.search_params)

    def close(self) -> None:
        """Close the client and give back the folder's lock, which closing the client alone would keep."""
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

        super().close()
        server_manager_instance.release_server(str(self._path))


def _open(path: Path) -> Any:
    quiet_pymilvus()
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    try:
        return MilvusClient(str(path), timeout=CALL_TIMEOUT_S)
    except MilvusException:
        raise DependencyUnavailable(
            f"The embedded index {path} cannot be opened: another process has it open, or its files are damaged.",
            hint="end the other job (or notebook) that uses it; milvus-lite serves one process at a time.",
        ) from None
