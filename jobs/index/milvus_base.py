"""The part of the driver that milvus-lite and a server share: everything that goes through ``MilvusClient``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from jobs.errors import BadInput, DependencyUnavailable, FaceReindexError
from jobs.index.milvus_calls import CALL_TIMEOUT_S, call
from jobs.index.milvus_keys import iterate_keys
from jobs.index.milvus_types import (
    BUCKET,
    EXPIRES,
    INFO_PROPERTY,
    KEY,
    METRIC,
    PURPOSES,
    SCALARS,
    VECTOR,
    CollectionInfo,
    Features,
    ImportState,
    IndexSpec,
    Keys,
    Vectors,
    as_rows,
    require_keys_in_range,
)

T = TypeVar("T")

INSERT_ROWS = 4_000  # 8 MiB of 512 dimensions; a request may hold 64 MiB
ID_LIST = 4_000
SEARCH_ROWS = 256
NO_ALIAS = frozenset({100, 1600})
EVERY_ROW = f"{KEY} >= {-(2**63) + 1}"


class MilvusIndex:
    """``VectorIndex`` over a pymilvus client. Subclasses say what differs: files, versions, import, locks."""

    def __init__(self, client: Any, where: str, features: Features) -> None:
        self._client = client
        self._where = where
        self._features = features
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

    def create(self, name: str, *, dim: int, shards: int, properties: CollectionInfo) -> None:
        """Make an empty collection with Strong consistency; an existing one is an error."""
        if self.exists(name):
            raise FaceReindexError(f"Collection '{name}' exists already ({self._where}).", hint="use another run id.")
        # The description would be the natural place for the info, but milvus-lite forgets it; both keep properties.
        self._call(
            "create the collection",
            name,
            self._client.create_collection,
            name,
            schema=self._schema(dim),
            num_shards=shards,
            consistency_level="Strong",
            properties={INFO_PROPERTY: properties.to_json()},
            timeout=CALL_TIMEOUT_S,
        )

    def _schema(self, dim: int) -> Any:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        for name in (BUCKET, PURPOSES, EXPIRES):
            schema.add_field(name, DataType.INT64)
        return schema

    def drop(self, name: str) -> None:
        """Remove a collection; refused while an alias points at it; nothing happens where there is none."""
        if not self.exists(name):
            return
        # Milvus drops it all the same, and the alias with it.
        aliases = self._aliases_of(name)
        if aliases:
            raise FaceReindexError(
                f"Collection '{name}' is live: alias '{aliases[0]}' points at it ({self._where}).",
                hint="switch the alias to another collection first.",
            )
        self._specs.pop(name, None)
        self._call("drop the collection", name, self._client.drop_collection, name, timeout=CALL_TIMEOUT_S)

    def _aliases_of(self, name: str) -> list[str]:
        found = self._call("list aliases", name, self._client.list_aliases, name, timeout=CALL_TIMEOUT_S)
        return list(found["aliases"])

    # -- rows ------------------------------------------------------------------------------------------------------

    def insert(self, name: str, batch: pa.RecordBatch | pa.Table) -> int:
        """Write rows by key (upsert): the same rows again change nothing, so a retry is safe."""
        try:
            scalars, vectors = as_rows(batch)
            require_keys_in_range(np.asarray(scalars[KEY], dtype=np.int64))
        except (ValueError, KeyError, OverflowError, TypeError) as error:
            raise BadInput(f"Rows for '{name}' are malformed: {type(error).__name__}.") from None
        if not np.isfinite(vectors).all():
            raise BadInput(f"Rows for '{name}' hold a vector that is not finite.", hint="stage them again.")
        for start in range(0, len(vectors), INSERT_ROWS):
            rows = [
                {VECTOR: vectors[i], **{c: scalars[c][i] for c in SCALARS}}
                for i in range(start, min(start + INSERT_ROWS, len(vectors)))
            ]
            self._call("write rows", name, self._client.upsert, name, rows, timeout=CALL_TIMEOUT_S)
        return len(vectors)

    def delete(self, name: str, ids: Keys | Sequence[int]) -> None:
        """Remove these keys, every copy of them, and flush."""
        for part in _parts(ids):
            # By primary key and nothing else: a delete by filter is resolved to keys once, and may miss copies.
            self._call("delete rows", name, self._client.delete, name, ids=part, timeout=CALL_TIMEOUT_S)
        self.flush(name, timeout=CALL_TIMEOUT_S)

    def flush(self, name: str, *, timeout: float) -> None:
        """Seal and persist what was written."""
        self._call("flush", name, self._client.flush, name, timeout=timeout, patience_s=timeout)

    def count(self, name: str) -> int:
        """Exact rows, duplicates counted each (``num_entities`` is an estimate)."""
        return self._count(name, "")

    def count_bucket(self, name: str, bucket: int) -> int:
        """Exact rows of a bucket, duplicates counted each."""
        return self._count(name, f"{BUCKET} == {int(bucket)}")

    def count_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        """Exact rows of these keys, duplicates counted each."""
        return sum(self._count(name, _in(part)) for part in _parts(ids))

    def count_distinct_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        """How many of these keys are there at all."""
        return sum(len({row[KEY] for row in self._query(name, _in(part), [KEY])}) for part in _parts(ids))

    def keys(self, name: str, bucket: int | None = None, *, page: int = 100_000) -> Iterator[Keys]:
        """Every distinct key, ascending, in pages."""
        suffix = "" if bucket is None else f" and {BUCKET} == {int(bucket)}"

        def expression(low: int, high: int) -> str:
            return f"{KEY} >= {low} and {KEY} <= {high}{suffix}"

        def read(low: int, high: int) -> Keys:
            rows = self._query(name, expression(low, high), [KEY])
            return np.fromiter((row[KEY] for row in rows), dtype=np.int64)

        return iterate_keys(lambda low, high: self._count(name, expression(low, high)), read, page=page)

    def fetch(self, name: str, ids: Keys | Sequence[int]) -> tuple[Keys, Vectors]:
        """The vectors of these keys, in their order; keys that are not there are left out."""
        wanted = require_keys_in_range(ids)
        found: dict[int, Any] = {}
        for part in _parts(wanted, SEARCH_ROWS * 4):
            found.update((row[KEY], row[VECTOR]) for row in self._query(name, _in(part), [KEY, VECTOR]))
        present = [int(i) for i in wanted if int(i) in found]
        return _rows([(i, found[i]) for i in present])

    def peek(self, name: str, n: int) -> tuple[Keys, Vectors]:
        """Any ``n`` rows."""
        rows = self._query(name, EVERY_ROW, [KEY, VECTOR], limit=n)
        return _rows([(row[KEY], row[VECTOR]) for row in rows])

    def _count(self, name: str, expression: str) -> int:
        return int(self._query(name, expression, ["count(*)"])[0]["count(*)"])

    def _query(self, name: str, expression: str, fields: Sequence[str], **more: Any) -> Any:
        return self._call(
            "answer a query",
            name,
            self._client.query,
            name,
            filter=expression,
            output_fields=list(fields),
            consistency_level="Strong",
            timeout=CALL_TIMEOUT_S,
            **more,
        )

    # -- index, memory, search -------------------------------------------------------------------------------------

    def build_index(self, name: str, spec: IndexSpec, *, timeout: float) -> None:
        """Index the vectors and the bucket, and wait for it; an index that exists is kept."""
        there = set(self._call("list indexes", name, self._client.list_indexes, name, timeout=CALL_TIMEOUT_S))
        wanted: dict[str, dict[str, Any]] = {
            VECTOR: {"index_type": spec.index_type, "metric_type": spec.metric, "params": dict(spec.params)},
            BUCKET: {"index_type": self._features.scalar_index},
        }
        for column, how in wanted.items():
            if column in there:
                continue
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
                patience_s=min(timeout, 60.0),
            )
        deadline = time.monotonic() + timeout
        for column in wanted:
            self._await_index(name, column, deadline)
        self._specs.pop(name, None)

    def _await_index(self, name: str, column: str, deadline: float) -> None:
        while True:
            state = self._call(
                "describe an index", name, self._client.describe_index, name, column, timeout=CALL_TIMEOUT_S
            )
            if state.get("state") in (None, "Finished") and not int(state.get("pending_index_rows") or 0):
                return
            if state.get("state") == "Failed":
                raise FaceReindexError(
                    f"Milvus could not build the index of '{name}.{column}'.",
                    hint="see the index node's log, or choose another milvus.index_type.",
                )
            if time.monotonic() > deadline:
                raise DependencyUnavailable(
                    f"The index of '{name}.{column}' was not built in time.",
                    hint="raise milvus.ready_timeout_s, then run the same command again.",
                )
            time.sleep(0.2)

    def load(self, name: str, *, replicas: int = 1, timeout: float) -> None:
        """Make it searchable; tries again until ``timeout`` (a restarted server refuses for half a minute)."""
        deadline = time.monotonic() + timeout

        def attempt() -> None:
            # An int: pymilvus ignores a float while it waits.
            left = max(1, int(deadline - time.monotonic()))
            self._client.load_collection(name, replica_number=replicas, timeout=left)
            self._client.query(
                name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=min(left, 30)
            )

        call("load the collection", self._at(name), attempt, patience_s=timeout)

    def release(self, name: str) -> None:
        """Take it out of memory."""
        self._call("release the collection", name, self._client.release_collection, name, timeout=CALL_TIMEOUT_S)

    def search(self, name: str, vectors: Vectors, k: int, *, strong: bool = True) -> tuple[Keys, Vectors]:
        """Keys and cosine similarities, best first, n × k; padded with key 0 and similarity -inf."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        ids = np.zeros((len(vectors), k), dtype=np.int64)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        params = {"metric_type": METRIC, "params": self._spec(name).search_params(k)}
        for start in range(0, len(vectors), SEARCH_ROWS):
            part = vectors[start : start + SEARCH_ROWS]
            answers = self._call(
                "answer a search",
                name,
                self._client.search,
                name,
                data=list(part),
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

    def _spec(self, name: str) -> IndexSpec:
        collection = self.alias_target(name) or name if name not in self._specs else name
        if collection not in self._specs:
            found = self._call(
                "describe an index", name, self._client.describe_index, collection, VECTOR, timeout=CALL_TIMEOUT_S
            )
            self._specs[collection] = IndexSpec(str(found["index_type"]), params=_ints(found))
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

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:  # noqa: ARG002
        """Start one bulk-import job."""
        raise FaceReindexError(f"{self._where} has no bulk import.", hint="set milvus.load_by=insert.")

    def import_state(self, job_id: str) -> ImportState:
        """Where the job stands."""
        return ImportState(job_id, "unknown")

    def list_imports(self, name: str) -> list[ImportState]:  # noqa: ARG002
        """All jobs of a collection that the server still knows."""
        return []

    def compact(self, name: str, *, timeout: float) -> bool:  # noqa: ARG002
        """Merge segments and drop deleted rows; False where the database has no such call."""
        return False

    def close(self) -> None:
        """Give back the connection."""
        self._client.close()

    # -- calls -----------------------------------------------------------------------------------------------------

    def _at(self, name: str) -> str:
        return f"'{name}' at {self._where}" if name else self._where

    def _call(
        self,
        action: str,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        patience_s: float | None = None,
        **kwargs: Any,
    ) -> Any:
        return call(action, self._at(name), functools.partial(function, *args, **kwargs), patience_s=patience_s)


def _parts(ids: Keys | Sequence[int], size: int = ID_LIST) -> list[list[int]]:
    ids = require_keys_in_range(ids)
    return [ids[i : i + size].tolist() for i in range(0, len(ids), size)]


def _in(ids: Sequence[int]) -> str:
    return f"{KEY} in [{','.join(map(str, ids))}]"


def _rows(found: Sequence[tuple[int, Any]]) -> tuple[Keys, Vectors]:
    ids = np.array([i for i, _ in found], dtype=np.int64)
    vectors = np.array([v for _, v in found], dtype=np.float32) if found else np.empty((0, 0), np.float32)
    return ids, vectors


def _ints(described: Mapping[str, Any]) -> dict[str, int]:
    names = ("M", "efConstruction", "nlist", "m", "nbits")
    return {n: int(described[n]) for n in names if str(described.get(n, "")).isdigit()}
