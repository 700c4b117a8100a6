"""Rows of a collection: written, deleted, counted and read back by key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import BadInput, FaceReindexError
from jobs.index.milvus.calls import CALL_TIMEOUT_S, call
from jobs.index.milvus.keys import iterate_keys
from jobs.index.milvus.vectors import decode, encode
from jobs.index.protocol import (
    BUCKET,
    KEY,
    MIN_KEY,
    NUMBER_BYTES,
    SCALARS,
    VECTOR,
    Features,
    Keys,
    Vectors,
    VectorType,
    as_rows,
    require_keys_in_range,
)

INSERT_ROWS = 4_000  # 8 MiB of 512 dimensions; a request may hold 64 MiB
ID_LIST = 4_000
FETCH_ROWS = 1_000
EVERY_ROW = f"{KEY} >= {MIN_KEY}"


class MilvusRows:
    """The half of ``VectorIndex`` that reads and writes rows, over a pymilvus client."""

    def __init__(self, client: Any, where: str, features: Features) -> None:
        self._client = client
        self._where = where
        self._features = features
        self._vector_types: dict[str, VectorType] = {}

    @property
    def client(self) -> Any:
        """The pymilvus client, for what is not part of `VectorIndex`."""
        return self._client

    def vector_type(self, name: str) -> VectorType:
        """The type of a collection's vectors, as the server tells it."""
        if self._features.vector_types == {"float32"}:
            return "float32"
        collection = self._target(name)
        if collection not in self._vector_types:
            self._vector_types[collection] = self._told_vector_type(collection)
        return self._vector_types[collection]

    def _told_vector_type(self, collection: str) -> VectorType:
        about = self._client.describe_collection
        found = self._call("describe", collection, about, collection, timeout=CALL_TIMEOUT_S)
        field = next((each["type"] for each in found["fields"] if each["name"] == VECTOR), None)
        told = next((name for name, data_type in data_types().items() if data_type == field), None)
        if told is None:
            raise FaceReindexError(
                f"Collection {self._at(collection)} has no field '{VECTOR}' of vectors that are known here.",
                hint="it is none of this project's: set another milvus.alias.",
            )
        return told

    def _target(self, name: str) -> str:
        """The collection of a name."""
        return name

    def _as_stored(self, name: str, vectors: Vectors) -> list[Any]:
        """Rows (float32 [n, dim]) in the type of a collection's vectors, as pymilvus takes them."""
        vector_type = self.vector_type(name)
        return list(vectors) if vector_type == "float32" else encode(vectors, vector_type)

    def insert(self, name: str, batch: pa.RecordBatch | pa.Table) -> int:
        """Write rows by key (upsert): the same rows again change nothing, so a retry is safe.

        Their vectors are float32, whatever the collection stores.
        """
        try:
            scalars, vectors = as_rows(batch)
            require_keys_in_range(np.asarray(scalars[KEY], dtype=np.int64))
        except (ValueError, KeyError, OverflowError, TypeError) as error:
            raise BadInput(f"Rows for '{name}' are malformed: {type(error).__name__}.") from None
        if not np.isfinite(vectors).all():
            raise BadInput(f"Rows for '{name}' hold a vector that is not finite.", hint="stage them again.")
        stored = self._as_stored(name, vectors)
        for start in range(0, len(vectors), INSERT_ROWS):
            rows = [
                {VECTOR: stored[i], **{c: scalars[c][i] for c in SCALARS}}
                for i in range(start, min(start + INSERT_ROWS, len(vectors)))
            ]
            self._call("write rows", name, self._client.upsert, name, rows, timeout=CALL_TIMEOUT_S)
        return len(vectors)

    def delete(self, name: str, ids: Keys | Sequence[int]) -> None:
        """Remove these keys, every copy of them."""
        for part in _parts(ids):
            # By primary key and nothing else: a delete by filter is resolved to keys once, and may miss copies.
            self._call("delete rows", name, self._client.delete, name, ids=part, timeout=CALL_TIMEOUT_S)

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
        for part in _parts(wanted, FETCH_ROWS):
            found.update((row[KEY], row[VECTOR]) for row in self._query(name, _in(part), [KEY, VECTOR]))
        present = [int(i) for i in wanted if int(i) in found]
        return _rows([(i, found[i]) for i in present], self.vector_type(name))

    def peek(self, name: str, n: int) -> tuple[Keys, Vectors]:
        """Any ``n`` rows."""
        rows = self._query(name, EVERY_ROW, [KEY, VECTOR], limit=n)
        return _rows([(row[KEY], row[VECTOR]) for row in rows], self.vector_type(name))

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


def data_types() -> dict[VectorType, Any]:
    """pymilvus's names for the types of vectors."""
    from pymilvus import DataType

    return {
        "float32": DataType.FLOAT_VECTOR,
        "float16": DataType.FLOAT16_VECTOR,
        "bfloat16": DataType.BFLOAT16_VECTOR,
    }


def _parts(ids: Keys | Sequence[int], size: int = ID_LIST) -> list[list[int]]:
    ids = require_keys_in_range(ids)
    return [ids[i : i + size].tolist() for i in range(0, len(ids), size)]


def _in(ids: Sequence[int]) -> str:
    return f"{KEY} in [{','.join(map(str, ids))}]"


def _rows(found: Sequence[tuple[int, Any]], vector_type: VectorType) -> tuple[Keys, Vectors]:
    ids = np.array([i for i, _ in found], dtype=np.int64)
    if not found:
        return ids, np.empty((0, 0), np.float32)
    if vector_type == "float32":
        return ids, np.array([v for _, v in found], dtype=np.float32)
    # pymilvus gives the bytes of a row in a list of their own.
    rows = [v if isinstance(v, bytes) else v[0] for _, v in found]
    return ids, decode(b"".join(rows), vector_type, len(rows[0]) // NUMBER_BYTES[vector_type])
