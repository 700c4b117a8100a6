# ruff: noqa: ARG002 -- it has the parameters of the protocol
"""An index in memory that keeps the driver's contract, and can be told to fail as servers were seen to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import BadInput, DependencyUnavailable, FaceReindexError
from jobs.index.milvus.keys import iterate_keys
from jobs.index.protocol import (
    BUCKET,
    KEY,
    CollectionInfo,
    Features,
    ImportState,
    IndexSpec,
    Keys,
    State,
    Vectors,
    VectorType,
    as_rows,
    require_keys_in_range,
)


@dataclass
class _Collection:
    info: CollectionInfo
    dim: int
    vector_type: VectorType = "float32"
    ids: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    vectors: Vectors | None = None
    buckets: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    indexed: bool = False
    loaded: bool = False

    def append(self, ids: Keys, vectors: Vectors, buckets: Keys) -> None:
        vectors = vectors.reshape(-1, self.dim)
        self.vectors = vectors if self.vectors is None else np.concatenate([self.vectors, vectors])
        self.ids = np.concatenate([self.ids, ids])
        self.buckets = np.concatenate([self.buckets, buckets])

    def keep(self, mask: np.ndarray) -> None:
        self.ids, self.buckets = self.ids[mask], self.buckets[mask]
        self.vectors = None if self.vectors is None else self.vectors[mask]


@dataclass
class FakeIndex:
    """``faults`` scripts what the next import of a path does, one word an attempt:

    ``fail`` no rows; ``fail_loaded`` says failed, all rows are there; ``fail_partial`` half of them; ``stall`` never
    ends, no rows; ``stall_loaded`` never ends, all rows; ``lost`` starts but no answer comes; ``refused`` no answer
    and nothing started; ``forgotten`` done, but the server does not know the job any more; ``twice`` two jobs;
    ``short`` says a row too few.
    """

    features: Features = field(default_factory=lambda: Features("fake-1.0.0", bulk_import=True, files_per_job=1))
    faults: dict[str, list[str]] = field(default_factory=dict)
    collections: dict[str, _Collection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, tuple[str, ImportState]] = field(default_factory=dict)
    staged: dict[str, pa.Table] = field(default_factory=dict)
    last_job: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    polls: dict[str, int] = field(default_factory=dict)
    search_skips_every: int = 0
    alias_stays: bool = False
    closed: bool = False

    def server_version(self) -> str:
        return self.features.version

    def exists(self, name: str) -> bool:
        return name in self.collections

    def list_collections(self, prefix: str = "") -> list[str]:
        return sorted(n for n in self.collections if n.startswith(prefix))

    def info(self, name: str) -> CollectionInfo | None:
        return self.collections[name].info if name in self.collections else None

    def create(
        self, name: str, *, dim: int, shards: int, properties: CollectionInfo, vector_type: VectorType = "float32"
    ) -> None:
        if name in self.collections:
            raise FaceReindexError(f"Collection '{name}' exists already.")
        self.collections[name] = _Collection(properties, dim, vector_type)

    def vector_type(self, name: str) -> VectorType:
        return self._get(name).vector_type

    def drop(self, name: str) -> None:
        if name in self.aliases.values():
            raise FaceReindexError(f"Collection '{name}' is live.")
        self.collections.pop(name, None)

    def insert(self, name: str, batch: pa.RecordBatch | pa.Table) -> int:
        try:
            scalars, vectors = as_rows(batch)
            ids = require_keys_in_range(np.asarray(scalars[KEY], np.int64))
        except (ValueError, KeyError) as error:
            raise BadInput("malformed") from error
        if not np.isfinite(vectors).all():
            raise BadInput("not finite")
        there = self._get(name)
        there.keep(~np.isin(there.ids, ids))
        there.append(ids, vectors, np.asarray(scalars[BUCKET], np.int64))
        return len(ids)

    def check_imports(self) -> None: ...

    def start_import(self, name: str, files: Sequence[str], *, token: str = "") -> str:
        assert 0 < len(files) <= self.features.files_per_job
        script = next((script for path in files if (script := self.faults.get(path))), ["ok"])
        fault = script.pop(0)
        if fault == "refused":
            raise DependencyUnavailable("no answer")
        self.last_job += 1
        job_id = str(self.last_job)
        state: State = "failed" if fault.startswith("fail") else "running" if fault.startswith("stall") else "done"
        table = pa.concat_tables([pq.read_table(path) for path in files])
        if fault == "fail_partial":
            table = table.slice(0, table.num_rows // 2)
        if self.features.two_phase_import:
            self.staged[job_id] = table
            state = "uncommitted" if state == "done" else state
        elif fault not in ("fail", "stall"):
            for _ in range(2 if fault == "twice" else 1):
                self._import(name, table)
        rows = table.num_rows - (fault == "short") if state in ("done", "uncommitted") else 0
        self.jobs[job_id] = (name, ImportState(job_id, state, rows, files=tuple(files)))
        if fault == "twice":
            self.jobs[job_id + "b"] = (name, ImportState(job_id + "b", state, rows, files=tuple(files)))
        if fault == "forgotten":
            del self.jobs[job_id]
        if fault == "lost":
            raise DependencyUnavailable("no answer")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return job_id

    def commit_import(self, job_id: str) -> None:
        name, state = self.jobs[job_id]
        if state.state == "uncommitted":
            self._import(name, self.staged.pop(job_id))
            self.jobs[job_id] = (name, replace(state, state="done"))

    def abort_import(self, job_id: str) -> None:
        name, state = self.jobs[job_id]
        if state.state == "done":
            raise FaceReindexError(f"Job {job_id} is over.")
        self.staged.pop(job_id, None)
        self.jobs[job_id] = (name, replace(state, state="failed", rows=0))

    def _import(self, name: str, table: pa.Table) -> None:
        scalars, vectors = as_rows(table)
        self._get(name).append(np.asarray(scalars[KEY], np.int64), vectors, np.asarray(scalars[BUCKET], np.int64))

    def import_state(self, job_id: str) -> ImportState:
        state = self.jobs[job_id][1] if job_id in self.jobs else ImportState(job_id, "unknown")
        self.polls[job_id] = self.polls.get(job_id, 0) + 1
        if state.finished and self.polls[job_id] == 1 and state.state == "done":
            return replace(state, state="running")
        if state.finished:
            self.in_flight -= 1
        return state

    def list_imports(self, name: str) -> list[ImportState]:
        return [state for collection, state in self.jobs.values() if collection == name]

    def flush(self, name: str, *, timeout: float) -> None:
        self._get(name)

    def build_index(
        self, name: str, spec: IndexSpec, *, timeout: float, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._get(name).indexed = True

    def load(self, name: str, *, replicas: int = 1, timeout: float) -> None:
        if not self._get(name).indexed:
            raise FaceReindexError(f"Collection '{name}' has no index.")
        self._get(name).loaded = True

    def release(self, name: str) -> None:
        self._get(name).loaded = False

    def count(self, name: str) -> int:
        return len(self._get(name, loaded=True).ids)

    def count_bucket(self, name: str, bucket: int) -> int:
        return int((self._get(name, loaded=True).buckets == bucket).sum())

    def count_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        return int(np.isin(self._get(name, loaded=True).ids, require_keys_in_range(ids)).sum())

    def count_distinct_ids(self, name: str, ids: Keys | Sequence[int]) -> int:
        return len(np.intersect1d(self._get(name, loaded=True).ids, require_keys_in_range(ids)))

    def keys(self, name: str, bucket: int | None = None, *, page: int = 100_000) -> Iterator[Keys]:
        there = self._get(name, loaded=True)
        ids = there.ids if bucket is None else there.ids[there.buckets == bucket]

        def between(low: int, high: int) -> Keys:
            return ids[(ids >= low) & (ids <= high)]

        return iterate_keys(lambda low, high: len(between(low, high)), between, page=page)

    def fetch(self, name: str, ids: Keys | Sequence[int]) -> tuple[Keys, Vectors]:
        there = self._get(name, loaded=True)
        place = {int(k): i for i, k in enumerate(there.ids)}
        rows = [place[int(i)] for i in require_keys_in_range(ids) if int(i) in place]
        return self._rows(there, rows)

    def peek(self, name: str, n: int) -> tuple[Keys, Vectors]:
        there = self._get(name, loaded=True)
        return self._rows(there, list(range(min(n, len(there.ids)))))

    @staticmethod
    def _rows(there: _Collection, rows: list[int]) -> tuple[Keys, Vectors]:
        if not rows or there.vectors is None:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return there.ids[rows], there.vectors[rows]

    def search(self, name: str, vectors: Vectors, k: int, *, strong: bool = True) -> tuple[Keys, Vectors]:
        there = self._get(name, loaded=True)
        ids = np.zeros((len(vectors), k), np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        if there.vectors is None or not len(there.ids):
            return ids, scores
        rows = np.arange(len(there.ids))
        if self.search_skips_every:
            rows = rows[rows % self.search_skips_every != 0]
        similarity = np.asarray(vectors, np.float32) @ there.vectors[rows].T
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        ids[:, : best.shape[1]] = there.ids[rows][best]
        scores[:, : best.shape[1]] = np.take_along_axis(similarity, best, 1)
        return ids, scores

    def warm_up(self, name: str, vectors: Vectors) -> None:
        if len(vectors):
            self.search(name, vectors, 10)

    def delete(self, name: str, ids: Keys | Sequence[int]) -> None:
        there = self._get(name)
        there.keep(~np.isin(there.ids, require_keys_in_range(ids)))

    def alias_target(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def aliases_of(self, name: str) -> list[str]:
        return sorted(alias for alias, target in self.aliases.items() if target == name)

    def switch_alias(self, alias: str, name: str) -> None:
        self._get(name)
        if not (self.alias_stays and alias in self.aliases):
            self.aliases[alias] = name

    def drop_alias(self, alias: str) -> None:
        self.aliases.pop(alias, None)

    def compact(self, name: str, *, timeout: float) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, name: str, *, loaded: bool = False) -> _Collection:
        there = self.collections.get(self.aliases.get(name, name))
        if there is None:
            raise FaceReindexError(f"There is no collection '{name}'.")
        if loaded and not there.loaded:
            raise FaceReindexError(f"Collection '{name}' is not loaded.")
        return there
