"""What the index drivers share: the schema's names, the answers' shapes, and the driver's protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Keys = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

KEY, VECTOR, BUCKET, PURPOSES, EXPIRES = "face_id", "embedding", "bucket", "purposes", "expires_at"
SCALARS = (KEY, BUCKET, PURPOSES, EXPIRES)

# Milvus cannot name the two ends of int64 in an expression: it fails to parse the literal -2^63, and a range up to
# 2^63 - 1 leaves that key out (2.3.5). A key there could be neither proven nor erased, so none may be staged.
MIN_KEY, MAX_KEY = -(2**63) + 1, 2**63 - 2

METRIC = "COSINE"

#: The types that a collection's vectors may have. All of them are read and written here as float32.
VectorType = Literal["float32", "float16", "bfloat16"]
NUMBER_BYTES: dict[VectorType, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
INFO_PROPERTY = "face_reindex.info"

#: Seconds that a flush may take.
FLUSH_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class CollectionInfo:
    """What a collection holds; it travels with the collection as one property."""

    model_fingerprint: str
    run_id: str
    trained: bool
    label: str
    created_at: str
    warehouse: str | None = None
    """Identity of the warehouse whose faces these are (`Warehouse.identity`); None: made by an earlier release."""
    purposes: tuple[str, ...] | None = None
    """What its faces were permitted for; None: made by an earlier release."""
    index: str | None = None
    """An id of the index that it was made in: that of the collections which it stood beside, else one of its own making
    (`stores.own_collections`); None: made by an earlier release."""

    def to_json(self) -> str:
        """As compact JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> CollectionInfo | None:
        """Read it back; None where the text is not ours (a collection that someone else made)."""
        try:
            found = cls(**json.loads(text))
            return found if found.purposes is None else replace(found, purposes=tuple(found.purposes))
        except (ValueError, TypeError, RecursionError):
            return None


@dataclass(frozen=True)
class IndexSpec:
    """A vector index, and how it is searched."""

    index_type: str
    metric: str = METRIC
    params: Mapping[str, int] = field(default_factory=dict)
    search: Mapping[str, int] = field(default_factory=dict)

    def search_params(self, k: int) -> dict[str, int]:
        """Parameters that search this index for ``k`` neighbours with high recall; ``search`` overrules them."""
        return self._search_defaults(k) | dict(self.search)

    def _search_defaults(self, k: int) -> dict[str, int]:
        match self.index_type:
            case "HNSW":
                return {"ef": max(128, 2 * k)}
            case "IVF_FLAT" | "IVF_SQ8" | "IVF_PQ":
                return {"nprobe": self._nprobe()}
            case "SCANN":
                return {"nprobe": self._nprobe(), "reorder_k": max(200, 20 * k)}
            case "DISKANN":
                return {"search_list": max(100, 2 * k)}
            case "GPU_CAGRA":
                return {"itopk_size": max(128, 2 * k)}
            case _:
                return {}

    def _nprobe(self) -> int:
        # Beyond a person's own pictures a face's neighbours lie in many lists: in an eighth of them 2 to 4 of 100 are
        # missed, in a quarter about 1 (docs/operations.md, "Which index").
        nlist = int(self.params.get("nlist", 128))
        return min(nlist, max(16, nlist // 4))


@dataclass(frozen=True)
class Features:
    """What this server can do, found out by asking it."""

    version: str
    bulk_import: bool
    files_per_job: int = 0
    scalar_index: str = "INVERTED"
    idempotent_import: bool = False
    two_phase_import: bool = False
    shows_failed_imports: bool = False
    """Rows of an import that has failed may be seen, until the server looks for such and drops them."""
    compaction: bool = True
    level_zero: bool = False
    """Deletes are kept apart from the rows (level 0), and have to reach them before a compaction can drop any."""
    compacts_level_zero: bool = False
    """That can be asked for; else the server does it by itself, when nothing was deleted for some time."""
    refused_indexes: frozenset[str] = frozenset()
    """Types of index that the server does not build over `METRIC`."""
    vector_types: frozenset[VectorType] = frozenset({"float32"})
    """Types of vectors that it stores."""
    unindexed: frozenset[tuple[str, VectorType]] = frozenset()
    """Types of index that it does not build over a type of vectors which it stores."""


# milvus-lite compacts after a flush by itself and has no call for it; `num_shards` and replicas are ignored.
EMBEDDED = Features("milvus-lite", bulk_import=False)

State = Literal["pending", "running", "uncommitted", "done", "failed", "unknown"]


@dataclass(frozen=True)
class ImportState:
    """One bulk-import job as the server tells it.

    ``uncommitted``: its rows are there, and invisible until it is committed (``Features.two_phase_import``).
    ``unknown``: the server has no record of it (any more).

    A young job of Milvus 2.4 and later names no ``files`` yet, and may be of any.
    """

    job_id: str
    state: State
    rows: int = 0
    progress: int = 0
    reason: str = ""
    files: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the job will not change any more."""
        return self.state in ("done", "failed", "unknown")


class VectorIndex(Protocol):
    """A vector database, reduced to what building and proving a face index needs.

    There is no search product here: ``search`` serves verification only. Every call has a time-out; what is out of
    reach raises ``DependencyUnavailable``, anything else ``FaceReindexError`` that names the collection.
    """

    @property
    def features(self) -> Features:
        """What this server can do."""

    def server_version(self) -> str:
        """Version, as the server says it."""

    def create(
        self, name: str, *, dim: int, shards: int, properties: CollectionInfo, vector_type: VectorType = "float32"
    ) -> None:
        """Make an empty collection with Strong consistency; an existing one is an error."""

    def vector_type(self, name: str) -> VectorType:
        """The type of a collection's vectors, as the server tells it; what is written and searched for is made so."""

    def info(self, name: str) -> CollectionInfo | None:
        """What ``create`` recorded; None for a collection that is not ours or does not exist."""

    def exists(self, name: str) -> bool:
        """Whether there is such a collection (an alias is not one)."""

    def drop(self, name: str) -> None:
        """Remove a collection; refused while an alias points at it; nothing happens where there is none."""

    def list_collections(self, prefix: str = "") -> list[str]:
        """Names that begin with ``prefix``, sorted."""

    def insert(self, name: str, batch: pa.RecordBatch | pa.Table) -> int:
        """Write rows by key: the same rows again change nothing."""

    def check_imports(self) -> None:
        """Make sure that bulk imports can be asked for, before anything is staged for them; it changes nothing.

        Raises:
            SettingsError: a setting is wrong or missing.
            DependencyUnavailable: what takes them is out of reach.
        """

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        """Start one bulk-import job; ``token`` makes a repeated request the same job where the server can."""

    def import_state(self, job_id: str) -> ImportState:
        """Where the job stands."""

    def list_imports(self, name: str) -> list[ImportState]:
        """All jobs of a collection that the server still knows."""

    def commit_import(self, job_id: str) -> None:
        """Make the rows of an ``uncommitted`` job visible; repeating it is harmless."""

    def abort_import(self, job_id: str) -> None:
        """Discard what a job has brought, where the server can (``Features.two_phase_import``)."""

    def flush(self, name: str, *, timeout: float) -> None:
        """Seal and persist what was written."""

    def build_index(
        self, name: str, spec: IndexSpec, *, timeout: float, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Index the vectors and the bucket, and wait for it; an index that exists is kept.

        ``on_progress`` is called with rows indexed and rows in all.
        """

    def load(self, name: str, *, replicas: int = 1, timeout: float) -> None:
        """Make it searchable; ``timeout``: seconds that it may be without progress."""

    def release(self, name: str) -> None:
        """Take it out of memory."""

    def count(self, name: str) -> int:
        """Exact rows, duplicates counted each."""

    def count_bucket(self, name: str, bucket: int) -> int:
        """Exact rows of a bucket, duplicates counted each."""

    def count_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        """Exact rows of these keys, duplicates counted each."""

    def count_distinct_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        """How many of these keys are there at all."""

    def keys(self, name: str, bucket: int | None = None, *, page: int = 100_000) -> Iterator[Keys]:
        """Every distinct key, ascending, in pages."""

    def fetch(self, name: str, ids: Keys | Sequence[int]) -> tuple[Keys, Vectors]:
        """The vectors of these keys as they are stored, in the keys' order; keys that are not there are left out."""

    def peek(self, name: str, n: int) -> tuple[Keys, Vectors]:
        """Any ``n`` rows."""

    def search(self, name: str, vectors: Vectors, k: int, *, strong: bool = True) -> tuple[Keys, Vectors]:
        """Keys and cosine similarities, best first, n × k; padded with key 0 and similarity -inf.

        A ``strong`` search waits for the server's clock (0.2 s); without, it sees what is loaded.
        """

    def warm_up(self, name: str, vectors: Vectors) -> None:
        """Search for these vectors and forget the answers."""

    def delete(self, name: str, ids: Keys | Sequence[int]) -> None:
        """Remove these keys, every copy of them; a `flush` after the last of them persists it."""

    def alias_target(self, alias: str) -> str | None:
        """The collection that an alias points at."""

    def aliases_of(self, name: str) -> list[str]:
        """All aliases that point at a collection."""

    def switch_alias(self, alias: str, name: str) -> None:
        """Point an alias at a collection, atomically where it exists."""

    def drop_alias(self, alias: str) -> None:
        """Remove an alias; nothing happens where there is none."""

    def compact(self, name: str, *, timeout: float) -> bool:
        """Have deleted rows of a loaded collection dropped from its segments, and look until they are.

        False where the database has no such call. ``timeout``: seconds that it may be without progress. It is to be
        flushed before: rows that are in no segment yet would make up for deleted ones.

        Raises:
            NotCompacted: it was not seen in time; the rows are hidden, and still stored.
        """

    def close(self) -> None:
        """Give back the connection, and the file's lock when embedded."""

    def __enter__(self) -> Self:
        """For a `with`, at whose end it is closed: whoever opens an index opens it so."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def parse_version(text: str) -> tuple[int, int, int]:
    """Numbers of a version string.

    >>> parse_version("v2.3.5-lite")
    (2, 3, 5)
    """
    found = _RELEASE.search(text)
    if not found:
        return (0, 0, 0)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def require_keys_in_range(ids: Keys | Sequence[int]) -> Keys:
    """``ids`` as int64, or ValueError where one is at an end of int64 that Milvus cannot address."""
    ids = np.asarray(ids, dtype=np.int64)
    if ids.size and (ids.min() < MIN_KEY or ids.max() > MAX_KEY):
        raise ValueError("a face_id at the end of the int64 range cannot be addressed in Milvus")
    return ids


def as_rows(batch: pa.RecordBatch | pa.Table) -> tuple[dict[str, Any], Vectors]:
    """Scalar columns as lists of numbers, and the vectors as one n × dim array."""
    table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
    scalars = {name: table.column(name).to_pylist() for name in SCALARS}
    flat = table.column(VECTOR).combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], flat.type)
    values = flat.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if table.num_rows == 0:
        return scalars, np.empty((0, 0), np.float32)
    if values.size % table.num_rows:
        raise ValueError("vectors of unequal length in one batch")
    return scalars, values.reshape(table.num_rows, -1)
