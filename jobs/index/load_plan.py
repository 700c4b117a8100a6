"""How a number of faces gets into Milvus: files, jobs and waves, memory, disk and time. Pure arithmetic.

What shapes the plan, and where it comes from:

* A data node holds a file's rows in memory while it cuts them into segments, so a file's size is bounded by the node's
  memory as well as by the server's limit (16 GB a file, ≤ 1,024 files a request: Milvus's documentation of 2.3 to 2.6).
* Up to 2.3 a request takes one file. Later ones take many, but one job of many files can end on few nodes (milvus
  #50872: 90 % on one), while many small jobs cost a round each (milvus-backup #655: up to 10 × by more files a job). So
  files are gathered into as many jobs as fill every node twice over, and no fewer.
* Files are of equal size, and as many as a multiple of the data nodes: no node then gets more than its share by more
  than the last wave's remainder, which is 0 where the files divide evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.errors import SettingsError
from jobs.formatting import size, span
from jobs.index.collections import PQ_BYTES, default_index, row_bytes
from jobs.index.protocol import (
    METRIC,
    NUMBER_BYTES,
    SCALARS,
    Features,
    IndexSpec,
    VectorIndex,
    VectorType,
)
from jobs.settings import Settings
from udfs.arrays import EMBEDDING_DIM

FILE_BYTES_LIMIT = 16 * 10**9
# A node reads a file into rows, then into columns by shard: about three times its size at the peak.
_MEMORY_FACTOR = 3
# Half of a node's memory is left to everything else that it does.
_MEMORY_SHARE = 0.5
# Smaller files cost more in rounds than they gain in balance.
_LEAST_ROWS = 10_000
_JOBS_A_SLOT = 2
# Parquet writes the length before a value of bytes, as a vector of 16-bit numbers is staged.
_LENGTH_BYTES = 4
GIB = 2**30


@dataclass(frozen=True)
class LoadPlan:
    """What a load will do and need. Bytes are estimates from row sizes; seconds from ``rows_per_s`` a data node."""

    rows: int
    files: int
    rows_per_file: int
    files_per_job: int
    jobs: int
    jobs_in_flight: int
    waves: int
    index: IndexSpec
    vector_type: VectorType
    staging_bytes: int
    stored_bytes: int
    memory_bytes: int
    seconds: float
    by_import: bool

    @property
    def shuffle_bytes(self) -> int:
        """What staging moves between executors: rows are float32 until they are written."""
        return self.rows * row_bytes("float32")

    def lines(self) -> list[str]:
        """The plan in words, one fact a line."""
        way = "bulk import" if self.by_import else "insert, file by file"
        jobs = f" in {self.jobs} jobs of {self.files_per_job}" if self.by_import else ""
        waves = f"; {self.jobs_in_flight} at a time, {self.waves} waves" if self.by_import else ""
        files = f"{self.files:,} file{'s' if self.files != 1 else ''}"
        return [
            f"{self.rows:,} faces by {way}: {files} of about {self.rows_per_file:,} rows{jobs}{waves}",
            f"index {self.index.index_type} {dict(self.index.params)}, vectors of {self.vector_type} numbers",
            f"staged {size(self.staging_bytes)}, stored {size(self.stored_bytes)}, "
            f"in memory {size(self.memory_bytes)}; the last two twice while the live collection stays beside it",
            f"{span(self.seconds)} to import, as estimated, without index and load",
        ]


def plan_load(rows: int, settings: Settings, features: Features, *, dim: int = EMBEDDING_DIM) -> LoadPlan:
    """The plan for ``rows`` faces under ``settings``, on a server with ``features``.

    Raises:
        SettingsError: `uses_bulk_import`, `check_vector_type`, `check_index_type`.
    """
    check_vector_type(settings, features)
    check_index_type(settings, features)
    milvus = settings.milvus
    vectors = milvus.vector_type
    nodes = milvus.data_nodes
    by_import = uses_bulk_import(settings, features)
    each = row_bytes(vectors, dim)
    rows_per_file = settings.staging.rows_per_file
    if by_import:
        # More jobs in flight than nodes share a node's memory; servers of one file a job give a node one job at a time
        # (2.3.5: two side by side took as long as one after the other, and each costs 3 s beside its rows).
        slots = 1 if features.files_per_job == 1 else math.ceil(max(milvus.import_jobs, nodes) / nodes)
        memory = milvus.data_node_memory_gib * GIB * _MEMORY_SHARE / _MEMORY_FACTOR / slots
        rows_per_file = max(1, min(rows_per_file, int(min(memory, FILE_BYTES_LIMIT) // each)))
    files = max(1, math.ceil(rows / rows_per_file))
    if by_import and rows >= nodes * _LEAST_ROWS:
        files = nodes * math.ceil(files / nodes)
    in_flight, files_per_job = share_out(files, settings, features)
    jobs = math.ceil(files / files_per_job)
    spec = default_index(settings, rows, embedded=settings.embedded)
    rate = milvus.import_rows_per_s * (min(nodes, in_flight) if by_import else 1)
    index = index_bytes(spec, rows, dim, vectors)
    return LoadPlan(
        rows=rows,
        files=files,
        rows_per_file=math.ceil(rows / files),
        files_per_job=files_per_job,
        jobs=jobs,
        jobs_in_flight=in_flight,
        waves=math.ceil(jobs / in_flight),
        index=spec,
        vector_type=vectors,
        staging_bytes=rows * (each + (0 if vectors == "float32" else _LENGTH_BYTES)),
        stored_bytes=rows * each + index,
        memory_bytes=milvus.replicas * (index + rows * 8 * len(SCALARS)),
        seconds=rows / rate,
        by_import=by_import,
    )


def uses_bulk_import(settings: Settings, features: Features) -> bool:
    """Whether rows come in by bulk import, and not by insert: decided here, for the plan and for the load.

    Raises:
        SettingsError: `milvus.load_by` asks for bulk import of an index that has none.
    """
    load_by = settings.milvus.load_by
    if load_by == "import" and not features.bulk_import:
        raise SettingsError(
            f"milvus.load_by is 'import', but this Milvus ({features.version}) has no bulk import.",
            hint="set milvus.load_by=auto.",
        )
    return features.bulk_import and load_by != "insert"


def check_load(settings: Settings, index: VectorIndex) -> None:
    """Ask for what a load will need, before hours are spent on what it would load. Nothing is changed.

    Raises:
        SettingsError: `check_vector_type`, `check_index_type`, `uses_bulk_import`, `VectorIndex.check_imports`.
        DependencyUnavailable: what takes bulk imports is out of reach.
    """
    check_vector_type(settings, index.features)
    check_index_type(settings, index.features)
    if uses_bulk_import(settings, index.features):
        index.check_imports()


def check_vector_type(settings: Settings, features: Features) -> None:
    """Refuse a type of vectors that this Milvus does not store, before anything is staged for it.

    Raises:
        SettingsError: it would refuse it, or take it for something else.
    """
    chosen = settings.milvus.vector_type
    if chosen not in features.vector_types:
        raise SettingsError(
            f"milvus.vector_type is {chosen}, which this Milvus ({features.version}) does not store.",
            hint="set milvus.vector_type=float32, or use a Milvus server from 2.4.1 on.",
        )


def check_collection(settings: Settings, index: VectorIndex, collection: str) -> None:
    """Make sure that a collection's vectors are of the type that files are staged in.

    Milvus itself would not tell float16 from bfloat16 in a file: both are bytes, of one length.

    Raises:
        SettingsError: they are not.
    """
    staged, stored = settings.milvus.vector_type, index.vector_type(collection)
    if staged != stored:
        raise SettingsError(
            f"milvus.vector_type is {staged}, and collection {collection} holds vectors of {stored}; nothing was "
            "loaded.",
            hint="load into a collection that is made with this setting: a new run (`reindex` without --run-id).",
        )


def check_index_type(settings: Settings, features: Features) -> None:
    """Refuse an index that this Milvus does not build over our metric or vectors, before anything is staged for it.

    Raises:
        SettingsError: it would refuse it.
    """
    chosen, vectors = settings.milvus.index_type, settings.milvus.vector_type
    if chosen in features.refused_indexes:
        raise SettingsError(
            f"milvus.index_type is {chosen}, which this Milvus ({features.version}) does not build over {METRIC}.",
            hint="set milvus.index_type=AUTO, or upgrade Milvus.",
        )
    if (chosen, vectors) in features.unindexed:
        built = [each for each in NUMBER_BYTES if (chosen, each) not in features.unindexed]
        raise SettingsError(
            f"milvus.index_type is {chosen}, which this Milvus ({features.version}) does not build over vectors of "
            f"{vectors} (milvus.vector_type).",
            hint=f"set milvus.index_type=AUTO, or milvus.vector_type to {' or '.join(built)}.",
        )


def share_out(files: int, settings: Settings, features: Features) -> tuple[int, int]:
    """How many jobs may run at once, and how many files each takes."""
    in_flight = max(1, min(files, max(settings.milvus.import_jobs, settings.milvus.data_nodes)))
    return in_flight, max(1, min(features.files_per_job, math.ceil(files / (_JOBS_A_SLOT * in_flight))))


def index_bytes(spec: IndexSpec, rows: int, dim: int = EMBEDDING_DIM, vector_type: VectorType = "float32") -> int:
    """About how large an index is, by what it keeps for each row.

    Lists are of float32 whatever the vectors are: Knowhere makes IVF and SCANN indexes of 16-bit vectors by the code
    for float32, over a copy (``KNOWHERE_MOCK_REGISTER…`` in its src/index/ivf/ivf.cc, 2.3.11 to 3.0.6).
    """
    raw, wide = NUMBER_BYTES[vector_type] * dim, 4 * dim
    params = spec.params
    each = {
        "FLAT": raw,
        "IVF_FLAT": wide + 8,
        "IVF_SQ8": dim + 8,
        "IVF_PQ": params.get("m", PQ_BYTES) * params.get("nbits", 8) // 8 + 8,
        # Neighbours of all layers: 2 M at the lowest, and half as many again above it at the most.
        "HNSW": raw + 4 * 2 * params.get("M", 16) + 8,
        # The vectors themselves (`with_raw_data`), and half a byte for each two dimensions (`sub_dim`).
        "SCANN": wide + dim // 4 + 8,
        # On disk: the vector and 56 neighbours. (In memory an eighth of it.)
        "DISKANN": raw + 4 * 56,
        "GPU_CAGRA": raw + 4 * 64,
    }[spec.index_type]
    return rows * each
