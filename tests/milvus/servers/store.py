"""Collections and their segments: which rows are visible, and which are still stored.

A delete is a row of an L0 segment. It hides rows at once, and takes none away: a compaction of L0 notes it at the
segments whose rows it hides (their *delta*), and only a compaction of these writes them anew without it.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pymilvus.grpc_gen import schema_pb2

Columns = dict[str, np.ndarray]
# What the numbers of a vector are kept as; numpy has no bfloat16, so that of such a one its two bytes are.
NUMBERS: dict[int, Any] = {
    schema_pb2.DataType.FloatVector: np.dtype("<f4"),
    schema_pb2.DataType.Float16Vector: np.dtype("<f2"),
    schema_pb2.DataType.BFloat16Vector: np.dtype("<u2"),
}
L0, L1 = "L0", "L1"


class Refused(Exception):
    """What a server answers in place of what it was asked for."""

    def __init__(self, code: int, message: str, http: int = 200) -> None:
        super().__init__(message)
        self.code, self.message, self.http = code, message, http


@dataclass(eq=False)
class Segment:
    """Rows (L1), or keys of deleted rows (L0), written at a logical time.

    ``deleted`` marks rows of which an L0 compaction has noted that they are gone: hidden, and still stored.
    """

    number: int
    level: str
    key: str
    columns: Columns
    at: int
    flushed: bool = False
    visible: bool = True
    deleted: np.ndarray = field(init=False)
    since: float = 0.0

    def __post_init__(self) -> None:
        self.deleted = np.zeros(self.rows, dtype=bool)

    @property
    def keys(self) -> np.ndarray:
        """Primary keys."""
        return self.columns[self.key]

    @property
    def rows(self) -> int:
        """How many rows are stored."""
        return len(self.columns[self.key])

    def hidden_by(self, deletes: Segment) -> np.ndarray:
        """Which rows a segment of deletes hides: those that were written before it."""
        if self.at >= deletes.at:
            return np.zeros(self.rows, dtype=bool)
        return np.isin(self.keys, deletes.keys)


@dataclass(eq=False)
class Collection:
    """A collection of one database."""

    number: int
    database: str
    name: str
    schema: schema_pb2.CollectionSchema
    properties: dict[str, str]
    shards: int
    segments: list[Segment] = field(default_factory=list)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)
    loaded: bool = False
    last_flush: float | None = None
    made: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        """The primary key's field."""
        return next(str(f.name) for f in self.schema.fields if f.is_primary_key)

    def at_level(self, level: str, *, flushed: bool | None = None) -> list[Segment]:
        """Segments of a level; with ``flushed`` only those that are, or are not, persistent."""
        return [s for s in self.segments if s.level == level and flushed in (None, s.flushed)]

    def seen(self) -> Columns:
        """The rows that a query with Strong consistency sees."""
        parts: list[Columns] = []
        for segment in self.at_level(L1):
            if not segment.visible:
                continue
            gone = segment.deleted.copy()
            for deletes in self.at_level(L0):
                gone |= segment.hidden_by(deletes)
            parts.append({name: column[~gone] for name, column in segment.columns.items()})
        return join(parts, self.schema)

    def stored(self, keys: np.ndarray) -> int:
        """How many rows of these keys lie in segments, seen or not."""
        return sum(int(np.isin(s.keys, keys).sum()) for s in self.at_level(L1))


def join(parts: list[Columns], schema: schema_pb2.CollectionSchema) -> Columns:
    """Parts of rows as one, every column in its type; also of no part."""
    joined = {}
    for about in schema.fields:
        empty = np.empty((0, dim_of(about)), NUMBERS[about.data_type]) if dim_of(about) else np.empty(0, np.int64)
        joined[about.name] = np.concatenate([empty, *(part[about.name] for part in parts)])
    return joined


def dim_of(about: Any) -> int:
    """Dimension of a vector's field; 0 of another one."""
    return next((int(p.value) for p in about.type_params if p.key == "dim"), 0)


def as_floats(vectors: np.ndarray) -> np.ndarray:
    """Stored vectors as float32."""
    if vectors.dtype == NUMBERS[schema_pb2.DataType.BFloat16Vector]:
        # The upper two bytes of a float32, of which the lower two are 0.
        return np.stack([np.zeros_like(vectors), vectors], axis=-1).view("<f4")[..., 0]
    return vectors.astype(np.float32)


def as_numbers(floats: np.ndarray, about: Any) -> np.ndarray:
    """float32 in a field's type, rounded."""
    kept = NUMBERS[about.data_type]
    if kept.kind == "f":
        return floats.astype(kept)
    low, high = np.moveaxis(np.ascontiguousarray(floats, "<f4")[..., None].view("<u2"), -1, 0)
    up = (low > 0x8000) | ((low == 0x8000) & (high % 2 == 1))
    return (high + up).astype("<u2")


class Store:
    """All collections and aliases of a server."""

    def __init__(self) -> None:
        self.databases = {"default"}
        self._collections: dict[tuple[str, str], Collection] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)
        self._times = itertools.count(1)

    def number(self) -> int:
        """The next free number: of a collection, a segment, a job."""
        return next(self._numbers)

    def create(self, database: str, name: str, schema: Any, properties: dict[str, str], shards: int) -> None:
        """Make a collection."""
        if database not in self.databases:
            raise Refused(800, f"database not found[database={database}]")
        if (database, name) in self._collections:
            raise Refused(65535, f"collection already exists[collection={name}]")
        self._collections[database, name] = Collection(self.number(), database, name, schema, properties, shards)

    def drop(self, database: str, name: str) -> None:
        """Remove a collection, and its aliases with it."""
        self._collections.pop((database, name), None)
        for alias in [a for a, target in self.aliases.items() if (a[0], target) == (database, name)]:
            del self.aliases[alias]

    def get(self, database: str, name: str) -> Collection:
        """A collection by its name or an alias."""
        name = self.aliases.get((database, name), name)
        found = self._collections.get((database, name))
        if found is None:
            raise Refused(100, f"collection not found[database={database}][collection={name}]")
        return found

    def all(self, database: str | None = None) -> Iterator[Collection]:
        """Collections of a database, or of all."""
        return iter([c for c in self._collections.values() if database in (None, c.database)])

    def write(self, there: Collection, columns: Columns, *, flushed: bool = False, visible: bool = True) -> Segment:
        """Rows as a segment of their own."""
        segment = Segment(self.number(), L1, there.key, columns, next(self._times), flushed, visible)
        there.segments.append(segment)
        return segment

    def delete(self, there: Collection, keys: np.ndarray) -> None:
        """Deletes as an L0 segment of their own, which is persistent after the next flush."""
        there.segments.append(Segment(self.number(), L0, there.key, {there.key: keys}, next(self._times)))

    def flush(self, there: Collection, now: float) -> list[int]:
        """Make all segments persistent; the numbers of those that were not."""
        fresh = [s for s in there.segments if not s.flushed]
        for segment in fresh:
            segment.flushed, segment.since = True, now
        return [s.number for s in fresh]


_TERM = re.compile(r"(\w+)\s*(==|>=|<=|<|>|!=|in)\s*(\[[^\]]*\]|-?\d+)\Z")
_COMPARE = {
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    ">": np.greater,
    "<": np.less,
}


def matching(expression: str, columns: Columns) -> np.ndarray:
    """Which rows an expression of terms that are joined by ``and`` matches; one that is not of this kind is refused."""
    rows = len(next(iter(columns.values())))
    found = np.ones(rows, dtype=bool)
    for term in filter(None, (part.strip() for part in re.split(r"\s+and\s+|\s*&&\s*", expression))):
        read = _TERM.match(term)
        if read is None or read[1] not in columns:
            raise Refused(1100, "failed to create query plan: cannot parse expression")
        column, value = columns[read[1]], read[3]
        if read[2] == "in":
            wanted = np.array([int(v) for v in value.strip("[]").split(",") if v.strip()], dtype=np.int64)
            found &= np.isin(column, wanted)
        else:
            found &= _COMPARE[read[2]](column, np.int64(int(value)))
    return found
