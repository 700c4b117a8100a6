"""Parquet files that Milvus imports: written by executors, checked, hashed; no vector passes the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Final
from uuid import uuid4

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from jobs.errors import DependencyUnavailable, NotProvenError
from jobs.index.distances import UNIT_TOLERANCE
from jobs.index.loader import StagedFile, sha256_of
from jobs.index.milvus.vectors import packed, unpacked
from jobs.index.protocol import MAX_KEY, MIN_KEY, VECTOR, VectorType
from jobs.tables.files import make_folder, remove_tree
from udfs.arrays import EMBEDDING_DIM
from udfs.reading import file_system

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import SparkSession

_STAGED_SCHEMA: Final = "face_id bigint, embedding {}, bucket bigint, purposes bigint, expires_at bigint"
_FILE_SCHEMA: Final = (
    "path string, bytes bigint, rows bigint, sha256 string, faults bigint, example string, twice bigint"
)
FACES_A_BUCKET: Final = 1_000_000
_WRITE_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class Manifest:
    """What was staged: the files, their rows, and the number of buckets that keys are spread over."""

    path: str
    files: tuple[StagedFile, ...]
    buckets: int
    vector_type: VectorType = "float32"

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    def read(self, spark: SparkSession) -> DataFrame:
        """The staged rows. Of the manifest's files alone: a task that was tried twice left another one beside them.

        A vector is an array of floats, or in a 16-bit type the bytes of one (`jobs.index.milvus.vectors.unpacked`).
        """
        schema = _STAGED_SCHEMA.format("array<float>" if self.vector_type == "float32" else "binary")
        if not self.files:
            return spark.createDataFrame([], schema)
        return spark.read.schema(schema).parquet(*(file.path for file in self.files))


def bucket_count(rows: int) -> int:
    """Buckets of keys: each small enough to be compared in one go, and never fewer than four."""
    return max(4, min(4096, -(-rows // FACES_A_BUCKET)))


def stage(
    faces: DataFrame,
    path: str,
    *,
    purpose_flags: int,
    files_for: Callable[[int], int],
    vector_type: VectorType = "float32",
) -> Manifest:
    """Write ``faces`` (face_id, embedding, valid_until) as Parquet under ``path`` and return the manifest.

    ``files_for`` says into how many files a number of rows is cut (`load_plan.plan_load`). Rows are spread by a hash of
    the key, so every file and every bucket gets its even share, and a key that stands twice meets itself in one file.
    Vectors are moved once and written once: a task checks, writes and hashes its file as the rows come by, where a
    second pass would read every byte back. (Arrow's writer also takes a third of the time of Spark's for arrays.)
    Looked at is the vector as the table has it; then it is rounded to ``vector_type``.

    Milvus itself accepts NaN, vectors of any length and the same key twice; so this refuses them.

    Raises:
        NotProvenError: a vector is not finite, not of unit length, or not of 512 numbers; or a key stands twice, or
            is one that Milvus cannot name.
    """
    rows = faces.count()
    buckets = bucket_count(rows)
    remove_tree(faces.sparkSession, path)
    # By the driver, so that it is closed to others whatever umask the executors' workers have.
    make_folder(faces.sparkSession, path)
    spread = faces.select("face_id", "embedding", "valid_until").repartition(files_for(rows), "face_id")
    written = rows_of(spread, buckets, purpose_flags).mapInArrow(_writer(path, vector_type), _FILE_SCHEMA).collect()
    _refuse(written, rows)
    ordered = sorted((row for row in written if row["rows"]), key=lambda row: str(row["path"]))
    files = [
        StagedFile(path=row["path"], rows=row["rows"], bytes=row["bytes"], sha256=row["sha256"], file_no=number)
        for number, row in enumerate(ordered)
    ]
    return Manifest(path, tuple(files), buckets, vector_type)


def rows_of(faces: DataFrame, buckets: int, purpose_flags: int) -> DataFrame:
    """Faces (face_id, embedding, valid_until) as the rows of a collection."""
    return faces.select(
        "face_id",
        "embedding",
        F.pmod(F.xxhash64("face_id"), F.lit(buckets)).alias("bucket"),
        F.lit(purpose_flags).cast("bigint").alias("purposes"),
        F.coalesce(F.unix_timestamp("valid_until"), F.lit(0)).alias("expires_at"),
    )


def _refuse(written: Sequence[Row], rows: int) -> None:
    seen = sum(row["rows"] + row["faults"] for row in written)
    faults = sum(row["faults"] for row in written)
    if twice := sum(row["twice"] for row in written):
        raise NotProvenError(f"staging: {twice} keys stand twice.", hint="run the same run id again.")
    if faults:
        example = next(row["example"] for row in written if row["example"])
        raise NotProvenError(
            f"staging: {faults} of {seen} faces are unusable ({example}); nothing was loaded.",
            hint="run `reindex --recompute` for this model.",
        )
    if seen != rows:
        raise NotProvenError(
            f"staging: {seen} rows were written where {rows} were counted.", hint="run the same run id again."
        )


def _writer(folder: str, vector_type: VectorType) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A task's part: its rows into one file; what it wrote and found, as one row."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None  # noqa: S101 - this runs in a task
        # Another attempt at the same task writes a file of its own.
        name = f"part-{context.partitionId():05d}-{context.taskAttemptId()}-{uuid4().hex[:8]}.parquet"
        system, path, prefix = file_system(f"{folder}/{name}", attempts=_WRITE_ATTEMPTS)
        faults: list[str] = []
        keys = [np.empty(0, np.int64)]
        first = next(batches, None)
        if first is None:
            return
        if not prefix:
            system.create_dir(path.rpartition("/")[0], recursive=True)
        with system.open_output_stream(path) as stream:
            hashed = _Hashed(stream)
            options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
            with pq.ParquetWriter(hashed, _stored(first.slice(0, 0), vector_type).schema, **options) as writer:
                for batch in chain([first], batches):
                    fault = _faults(batch)
                    good = batch.filter(pa.array(fault == "")) if fault.any() else batch
                    faults += fault[fault != ""].tolist()
                    keys.append(good.column("face_id").to_numpy())
                    writer.write_batch(_stored(good, vector_type))
        every = np.concatenate(keys)
        found = (prefix + path, hashed.bytes, len(every), hashed.digest.hexdigest(), len(faults),
                 next(iter(faults), None), len(every) - len(np.unique(every)))  # fmt: skip
        yield pa.RecordBatch.from_pydict(
            {column.split()[0]: [value] for column, value in zip(_FILE_SCHEMA.split(", "), found, strict=True)}
        )

    return write


def _stored(batch: pa.RecordBatch, vector_type: VectorType) -> pa.RecordBatch:
    """Rows whose vectors are lists of floats, with their vectors as the collection stores them."""
    if vector_type == "float32":
        return batch
    place = batch.schema.get_field_index(VECTOR)
    column = packed(unpacked(batch.column(place), "float32", EMBEDDING_DIM), vector_type)
    return batch.set_column(place, VECTOR, column)


class _Hashed:
    """A file that is hashed while it is written."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.bytes, self.digest = stream, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self.digest.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.closed = True


def _faults(batch: pa.RecordBatch) -> np.ndarray:
    """What is wrong with each row; the empty string where nothing is."""
    import numpy as np

    vectors = batch.column("embedding")
    lengths = np.diff(vectors.offsets.to_numpy())
    fault = np.full(len(batch), "", dtype=object)
    fault[lengths != EMBEDDING_DIM] = "WRONG_DIMENSION"
    right = np.flatnonzero(lengths == EMBEDDING_DIM)
    whole = len(right) == len(batch)
    flat = vectors.flatten() if whole else vectors.take(right).flatten()
    matrix = flat.to_numpy(zero_copy_only=False).reshape(-1, EMBEDDING_DIM)
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    fault[right[~np.isfinite(norms)]] = "NOT_FINITE"
    fault[right[np.isfinite(norms) & (np.abs(norms - 1) > UNIT_TOLERANCE)]] = "NOT_UNIT_LENGTH"
    keys = batch.column("face_id").to_numpy(zero_copy_only=False)
    fault[(keys < MIN_KEY) | (keys > MAX_KEY)] = "KEY_OUT_OF_RANGE"
    return fault


def digests(spark: SparkSession, files: Sequence[StagedFile], *, window: int = 64) -> Callable[[str], str]:
    """A function from a file's path to the SHA-256 of its bytes as they are now, read by executors.

    Asked for one file, it has the next ``window`` of the manifest hashed in one Spark job; asked for it again (before a
    second import, or after an outage), it reads that file again and no other.

    The function raises ``DependencyUnavailable`` for a file that cannot be read. One whose bytes the store itself finds
    damaged has no digest (the empty string), and so is not what was staged.
    """
    order = [file.path for file in files]
    known: dict[str, str | None] = {}
    asked: set[str] = set()

    def digest(path: str) -> str:
        if path not in known:
            at = order.index(path)
            wanted = [path] if path in asked else order[at : at + window]
            paths = spark.createDataFrame([(p,) for p in wanted], "path string").repartition(len(wanted))
            rows = paths.mapInArrow(_sha256, "path string, sha256 string").collect()
            known.update((row["path"], row["sha256"]) for row in rows)
        asked.add(path)
        found = known.pop(path)
        if found is None:
            raise DependencyUnavailable(
                f"Staged file {path} cannot be read.",
                hint="check that the staging path is reachable; if it was cleaned, load with a new run id.",
            )
        return found

    return digest


def _sha256(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        hashes = [_readable_sha256(path) for path in batch.column("path").to_pylist()]
        yield pa.RecordBatch.from_arrays([batch.column("path"), pa.array(hashes, pa.string())], ["path", "sha256"])


def _readable_sha256(path: str) -> str | None:
    try:
        return sha256_of(path)
    except (OSError, DependencyUnavailable) as error:
        # S3 keeps checksums of its own, and Arrow compares them: not an outage, and it would never pass.
        return "" if "checksum" in str(error).lower() else None
