"""The part of the driver that milvus-lite and a server share: everything that goes through ``MilvusClient``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from jobs.errors import FaceReindexError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, Patience, call
from jobs.index.milvus.rows import MilvusRows, data_types
from jobs.index.protocol import (
    BUCKET,
    EXPIRES,
    INFO_PROPERTY,
    KEY,
    METRIC,
    PURPOSES,
    VECTOR,
    CollectionInfo,
    Features,
    ImportState,
    IndexSpec,
    Keys,
    Vectors,
    VectorType,
)

SEARCH_ROWS = 256
RESTART_S = 180.0
"""What a server that was started again may take until it answers as before."""
NO_ALIAS = frozenset({100, 1600})


class MilvusIndex(MilvusRows):
    """``VectorIndex`` over a pymilvus client. Subclasses say what differs: files, versions, import, locks."""

    def __init__(
        self, client: Any, where: str, features: Features, search_params: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(client, where, features)
        self._search_params = dict(search_params or {})
        self._specs: dict[str, IndexSpec] = {}

    # -- what is there ---------------------------------------------------------------------------------------------

    @property
    def features(self) -> Features:
        """What this server can do."""
        return self._features

    def server_version(self) -> str:
        """Version, as the server says it."""
        return str(self._call("tell its version", "", self._client.get_server_version, timeout=CALL_TIMEOUT_S))

    def exists(self, name: str) -> bool:
        """Whether there is such a collection (an alias is not one)."""
        return name in self.list_collections()

    def list_collections(self, prefix: str = "") -> list[str]:
        """Names that begin with ``prefix``, sorted."""
        names = self._call("list collections", "", self._client.list_collections, timeout=CALL_TIMEOUT_S)
        return sorted(n for n in names if n.startswith(prefix))

    def info(self, name: str) -> CollectionInfo | None:
        """What ``create`` recorded; None for a collection that is not ours or does not exist."""
        if not self.exists(name):
            return None
        found = self._call("describe", name, self._client.describe_collection, name, timeout=CALL_TIMEOUT_S)
        return CollectionInfo.from_json(found.get("properties", {}).get(INFO_PROPERTY, ""))

    # -- life of a collection --------------------------------------------------------------------------------------

    def create(
        self, name: str, *, dim: int, shards: int, properties: CollectionInfo, vector_type: VectorType = "float32"
    ) -> None:
        """Make an empty collection with Strong consistency; an existing one is an error."""
        if self.exists(name):
            raise FaceReindexError(f"Collection '{name}' exists already ({self._where}).", hint="use another run id.")
        # The description would be the natural place for the info, but milvus-lite forgets it; both keep properties.
        self._call(
            "create the collection",
            name,
            self._client.create_collection,
            name,
            schema=self._schema(dim, vector_type),
            num_shards=shards,
            consistency_level="Strong",
            properties={INFO_PROPERTY: properties.to_json()},
            timeout=CALL_TIMEOUT_S,
        )
        # Now, not with the vectors' index: Milvus 2.3.5 gets to the second index of an imported collection only after
        # 50 s, and to one that was there before the import at once.
        self._declare_index(name, BUCKET, {"index_type": self._features.scalar_index}, CALL_TIMEOUT_S)

    def _schema(self, dim: int, vector_type: VectorType) -> Any:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, data_types()[vector_type], dim=dim)
        for name in (BUCKET, PURPOSES, EXPIRES):
            schema.add_field(name, DataType.INT64)
        return schema

    def drop(self, name: str) -> None:
        """Remove a collection; refused while an alias points at it; nothing happens where there is none."""
        if not self.exists(name):
            return
        # Milvus drops it all the same, and the alias with it.
        aliases = self.aliases_of(name)
        if aliases:
            raise FaceReindexError(
                f"Collection '{name}' is live: alias '{aliases[0]}' points at it ({self._where}).",
                hint="switch the alias to another collection first.",
            )
        self._specs.pop(name, None)
        self._vector_types.pop(name, None)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._call("drop the collection", name, self._client.drop_collection, name, timeout=CALL_TIMEOUT_S)

    # -- index, memory, search -------------------------------------------------------------------------------------

    def build_index(
        self, name: str, spec: IndexSpec, *, timeout: float, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Index the vectors and the bucket, and wait while rows are indexed; an index that exists is kept.

        Raises:
            DependencyUnavailable: no row was indexed for ``timeout`` seconds, or the server is out of reach.
        """
        self._declare_index(name, BUCKET, {"index_type": self._features.scalar_index}, timeout)
        self._declare_index(
            name,
            VECTOR,
            {"index_type": spec.index_type, "metric_type": spec.metric, "params": dict(spec.params)},
            timeout,
        )
        for column in (BUCKET, VECTOR):
            self._await_index(name, column, Patience(timeout), on_progress if column == VECTOR else None)
        self._specs.pop(name, None)

    def _declare_index(self, name: str, column: str, how: dict[str, Any], timeout: float) -> None:
        if column in self._call("list indexes", name, self._client.list_indexes, name, timeout=CALL_TIMEOUT_S):
            return
        params = self._client.prepare_index_params()
        params.add_index(column, index_name=column, **how)
        # sync=False: pymilvus ignores a time-out given as a float while it waits, so the wait is ours.
        self._call(
            "build an index",
            name,
            self._client.create_index,
            name,
            params,
            sync=False,
            timeout=CALL_TIMEOUT_S,
            patience_s=min(timeout, CALL_TIMEOUT_S),
        )

    def _await_index(
        self, name: str, column: str, patience: Patience, on_progress: Callable[[int, int], None] | None
    ) -> None:
        while True:
            state = self._call(
                "describe an index", name, self._client.describe_index, name, column, timeout=CALL_TIMEOUT_S
            )
            indexed = int(state.get("indexed_rows") or 0)
            if on_progress is not None:
                on_progress(indexed, int(state.get("total_rows") or 0))
            if state.get("state") in (None, "Finished") and not int(state.get("pending_index_rows") or 0):
                return
            if state.get("state") == "Failed":
                raise FaceReindexError(
                    f"Milvus could not build the index of '{name}.{column}'.",
                    hint="see the index node's log, or choose another milvus.index_type.",
                )
            patience.look(indexed, f"The index of '{name}.{column}'")
            time.sleep(0.2)

    def load(self, name: str, *, replicas: int = 1, timeout: float) -> None:
        """Make it searchable, and wait while it is loaded; what a server refuses while it restarts is asked again.

        Raises:
            DependencyUnavailable: nothing was loaded for ``timeout`` seconds, or the server stays out of reach.
        """
        tried = partial(call, where=self._at(name), patience_s=min(timeout, RESTART_S))
        patience = Patience(timeout)
        tried("load the collection", function=lambda: self._ask_to_load(name, replicas))
        while (loaded := tried("load the collection", function=lambda: self._loaded(name, replicas))) < 100:
            patience.look(loaded, f"The load of '{name}'")
            time.sleep(0.2)
        count = partial(self._client.query, filter="", output_fields=["count(*)"], consistency_level="Strong")
        tried("count after the load", function=lambda: count(name, timeout=30))

    def _ask_to_load(self, name: str, replicas: int) -> None:
        # Not pymilvus's own wait: its time-out is one for all, and an error that no caller can tell from others.
        self._client.load_collection(name, replica_number=replicas, _async=True, timeout=CALL_TIMEOUT_S)

    def _loaded(self, name: str, replicas: int) -> int:
        """Per cent; a load that was given up (a query node died) is asked for again."""
        from pymilvus.client.types import LoadState

        found = self._client.get_load_state(name, timeout=CALL_TIMEOUT_S)
        if found["state"] in (LoadState.NotLoad, LoadState.NotExist):
            self._ask_to_load(name, replicas)
        return 100 if found["state"] == LoadState.Loaded else int(found.get("progress", 0))

    def release(self, name: str) -> None:
        """Take it out of memory."""
        self._call("release the collection", name, self._client.release_collection, name, timeout=CALL_TIMEOUT_S)

    def search(self, name: str, vectors: Vectors, k: int, *, strong: bool = True) -> tuple[Keys, Vectors]:
        """Keys and cosine similarities, best first, n × k; padded with key 0 and similarity -inf."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        collection = self._target(name)
        asked = self._as_stored(collection, vectors)
        ids = np.zeros((len(vectors), k), dtype=np.int64)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        params = {"metric_type": METRIC, "params": self._spec(collection).search_params(k)}
        for start in range(0, len(vectors), SEARCH_ROWS):
            answers = self._call(
                "answer a search",
                name,
                self._client.search,
                name,
                data=asked[start : start + SEARCH_ROWS],
                anns_field=VECTOR,
                limit=k,
                search_params=params,
                output_fields=[KEY],
                consistency_level="Strong" if strong else "Eventually",
                timeout=CALL_TIMEOUT_S,
            )
            for row, hits in enumerate(answers, start):
                for rank, hit in enumerate(hits):
                    # The key's field name differs: milvus-lite says `face_id`, the server `id`.
                    ids[row, rank] = hit["entity"][KEY]
                    scores[row, rank] = hit["distance"]
        return ids, scores

    def warm_up(self, name: str, vectors: Vectors) -> None:
        """Search for these vectors and forget the answers."""
        if len(vectors):
            self.search(name, vectors, 10)

    def _target(self, name: str) -> str:
        """The collection of a name, or of an alias, which may have moved since it was asked for."""
        known = name in self._specs or name in self._vector_types
        return name if known else self.alias_target(name) or name

    def _spec(self, name: str) -> IndexSpec:
        collection = self._target(name)
        if collection not in self._specs:
            found = self._call(
                "describe an index", name, self._client.describe_index, collection, VECTOR, timeout=CALL_TIMEOUT_S
            )
            self._specs[collection] = IndexSpec(
                str(found["index_type"]), params=_ints(found), search=self._search_params
            )
        return self._specs[collection]

    # -- aliases ---------------------------------------------------------------------------------------------------

    def alias_target(self, alias: str) -> str | None:
        """The collection that an alias points at."""
        from pymilvus.exceptions import MilvusException

        def ask() -> str | None:
            try:
                return str(self._client.describe_alias(alias, timeout=CALL_TIMEOUT_S)["collection_name"]) or None
            except MilvusException as error:
                if error.code in NO_ALIAS:
                    return None
                raise

        return call("describe the alias", self._at(alias), ask)

    def aliases_of(self, name: str) -> list[str]:
        """All aliases that point at a collection."""
        found = self._call("list aliases", name, self._client.list_aliases, name, timeout=CALL_TIMEOUT_S)
        return sorted(found["aliases"])

    def switch_alias(self, alias: str, name: str) -> None:
        """Point an alias at a collection, atomically where it exists."""
        current = self.alias_target(alias)
        if current == name:
            return
        change = self._client.create_alias if current is None else self._client.alter_alias
        self._call("switch the alias", f"{alias} to {name}", change, name, alias, timeout=CALL_TIMEOUT_S)

    def drop_alias(self, alias: str) -> None:
        """Remove an alias; nothing happens where there is none."""
        if self.alias_target(alias) is not None:
            self._call("drop the alias", alias, self._client.drop_alias, alias, timeout=CALL_TIMEOUT_S)

    # -- import: what a server has and milvus-lite has not ----------------------------------------------------------

    def check_imports(self) -> None:
        """Nothing to look at where there are none."""

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:  # noqa: ARG002
        """Start one bulk-import job."""
        raise FaceReindexError(f"{self._where} has no bulk import.", hint="set milvus.load_by=insert.")

    def import_state(self, job_id: str) -> ImportState:
        """Where the job stands."""
        return ImportState(job_id, "unknown")

    def list_imports(self, name: str) -> list[ImportState]:  # noqa: ARG002
        """All jobs of a collection that the server still knows."""
        return []

    def commit_import(self, job_id: str) -> None:
        """Make the rows of an ``uncommitted`` job visible."""
        raise FaceReindexError(f"{self._where} has no import in two phases (job {job_id}).")

    def abort_import(self, job_id: str) -> None:
        """Discard what a job has brought."""
        raise FaceReindexError(f"{self._where} has no import in two phases (job {job_id}).")

    def compact(self, name: str, *, timeout: float) -> bool:  # noqa: ARG002
        """Merge segments and drop deleted rows; False where the database has no such call."""
        return False

    def close(self) -> None:
        """Give back the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ints(described: Mapping[str, Any]) -> dict[str, int]:
    names = ("M", "efConstruction", "nlist", "m", "nbits")
    return {n: int(described[n]) for n in names if str(described.get(n, "")).isdigit()}
