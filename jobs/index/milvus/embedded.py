"""milvus-lite: the embedded default. One process at a time may open its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.errors import DependencyUnavailable, NotProvenError, SettingsError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, prepare_pymilvus
from jobs.index.milvus.client import MilvusIndex
from jobs.index.protocol import EMBEDDED, KEY, SCALARS, VECTOR, CollectionInfo, VectorType
from jobs.settings import Settings

_SPARE = "__compacted"
_DROPPED = "__dropped"
_COPY_ROWS = 2_000


class EmbeddedIndex(MilvusIndex):
    """A milvus-lite folder, opened by this process alone."""

    def __init__(self, path: Path, search_params: Mapping[str, int] | None = None) -> None:
        self._path = path
        client = _open(path)
        version = client.get_server_version(timeout=CALL_TIMEOUT_S)
        super().__init__(client, str(path), replace(EMBEDDED, version=version), search_params)
        self._remove_remains()
        self._end_compactions()

    @classmethod
    def open(cls, settings: Settings) -> EmbeddedIndex:
        """Open, or make, the folder that ``milvus.uri`` names."""
        if Path(settings.milvus.uri).suffix != ".db":
            raise SettingsError(
                f"milvus.uri '{settings.milvus.uri}': an embedded index is a path that ends in .db.",
                hint="use for example face-index.db, or http://host:port for a server.",
            )
        path = settings.index_file
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path.resolve(), settings.milvus.search_params)

    def create(
        self, name: str, *, dim: int, shards: int, properties: CollectionInfo, vector_type: VectorType = "float32"
    ) -> None:
        """As `MilvusIndex.create`; what a drop or a creation that was cut off has left of that name is removed."""
        self._remove_remains()
        super().create(name, dim=dim, shards=shards, properties=properties, vector_type=vector_type)

    def _drop(self, name: str) -> None:
        """Under another name first: milvus-lite removes file after file, and whether a collection is there is told by
        one of them. Cut off at any point, it is there whole, or `_remove_remains` removes the rest."""
        self._remove_remains()
        self._call("rename", name, self._client.rename_collection, name, name + _DROPPED, timeout=CALL_TIMEOUT_S)
        super()._drop(name + _DROPPED)

    def _remove_remains(self) -> None:
        """Remove what is left of collections whose drop or creation was cut off: nobody else sees, or removes, it."""
        from milvus_lite.db import COLLECTIONS_DIRNAME, SCHEMA_FILENAME  # type: ignore[import-untyped]

        for folder in (self._path / COLLECTIONS_DIRNAME).iterdir():
            if folder.is_dir() and (folder.name.endswith(_DROPPED) or not (folder / SCHEMA_FILENAME).exists()):
                shutil.rmtree(folder)

    def compact(self, name: str, *, timeout: float) -> bool:
        """Write the rows that are there into a fresh collection, which takes the place of this one.

        milvus-lite merges files by itself, when there are many, and has no call for it: until then a deleted row stays
        in its file. Cut off at any point, the next `open`, or the next one of these, ends it or begins anew.
        """
        spare = name + _SPARE
        if self.exists(spare):
            self._end_compactions()
            self.load(name, timeout=timeout)
        spec, info = self._spec(name), self.info(name)
        assert info is not None  # noqa: S101 - only collections of ours are compacted
        self.create(spare, dim=self._dim(name), shards=1, properties=info)
        for keys in self.keys(name, page=_COPY_ROWS):
            rows = self._query(name, f"{KEY} in {keys.tolist()}", [KEY, VECTOR, *SCALARS[1:]])
            columns = {field: [row[field] for row in rows] for field in (KEY, VECTOR, *SCALARS[1:])}
            columns[VECTOR] = pa.array([list(v) for v in columns[VECTOR]], pa.list_(pa.float32()))
            self.insert(spare, pa.table(columns))
        self.flush(spare, timeout=timeout)
        self.build_index(spare, spec, timeout=timeout)
        self.load(spare, timeout=timeout)
        if self.count(spare) != self.count(name):
            raise NotProvenError(f"Collection {name} could not be compacted: rows were lost.", hint="run it again.")
        self._take_its_place(name)
        self.load(name, timeout=timeout)
        return True

    def _dim(self, name: str) -> int:
        described = self._call("describe", name, self._client.describe_collection, name, timeout=CALL_TIMEOUT_S)
        return next(int(field["params"]["dim"]) for field in described["fields"] if field["name"] == VECTOR)

    def _take_its_place(self, name: str) -> None:
        spare = name + _SPARE
        aliases = self.aliases_of(name) if self.exists(name) else self.aliases_of(spare)
        for alias in aliases:
            self.switch_alias(alias, spare)
        self.drop(name)
        self._specs.pop(spare, None)
        self._call("rename the collection", spare, self._client.rename_collection, spare, name, timeout=CALL_TIMEOUT_S)
        for alias in aliases:
            self.switch_alias(alias, name)

    def _end_compactions(self) -> None:
        """A spare collection that an alias points at is complete; so is one whose original is gone; others are not."""
        for spare in [n for n in self.list_collections() if n.endswith(_SPARE)]:
            name = spare.removesuffix(_SPARE)
            if self.aliases_of(spare) or not self.exists(name):
                self._take_its_place(name)
            else:
                self.drop(spare)
        # Renamed, and cut off before its aliases followed.
        for name in self.list_collections():
            for alias in self.aliases_of(name + _SPARE):
                self.switch_alias(alias, name)

    def close(self) -> None:
        """Close the client and give back the folder's lock, which closing the client alone would keep."""
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

        super().close()
        server_manager_instance.release_server(str(self._path))


def _open(path: Path) -> Any:
    prepare_pymilvus()
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    try:
        return MilvusClient(str(path), timeout=CALL_TIMEOUT_S)
    except MilvusException:
        raise DependencyUnavailable(
            f"The embedded index {path} cannot be opened: another process has it open, or its files are damaged.",
            hint="end the other job (or notebook) that uses it; milvus-lite serves one process at a time.",
        ) from None
