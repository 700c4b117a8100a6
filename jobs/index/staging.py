"""Parquet files that Milvus imports: written by executors, checked, hashed; no vector passes the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from jobs.errors import DependencyUnavailable, NotProvenError
from jobs.index.loader import StagedFile, sha256_of
from jobs.index.milvus_types import DIM, MAX_KEY, MIN_KEY
from jobs.tables.sources import file_uri
from udfs.reading import open_stream

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

STAGED_SCHEMA: Final = "face_id bigint, embedding array<float>, bucket bigint, purposes bigint, expires_at bigint"
_CHECKED_SCHEMA: Final = STAGED_SCHEMA + ", fault string"
_UNIT_TOLERANCE: Final = 1e-3
FACES_A_BUCKET: Final = 1_000_000


@dataclass(frozen=True)
class Staged:
    """The manifest: the files, their rows, and the number of buckets that keys are spread over."""

    path: str
    files: tuple[StagedFile, ...]
    buckets: int

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)


def bucket_count(rows: int) -> int:
    """Buckets of keys: each small enough to be compared in one go, and never fewer than four."""
    return max(4, min(4096, -(-rows // FACES_A_BUCKET)))


def stage(faces: DataFrame, path: str, *, purpose_flags: int, files_for: Callable[[int], int]) -> Staged:
    """Write ``faces`` (face_id, embedding, valid_until) as Parquet under ``path`` and return the manifest.

    ``files_for`` says into how many files a number of rows is cut (`planner.plan_load`). Rows are spread by a hash of
    the key, so every file and every bucket gets its even share. Milvus itself accepts NaN, vectors of any length and
    the same key twice; so this refuses them.

    Raises:
        NotProvenError: a vector is not finite, not of unit length, or not of 512 numbers; or a key stands twice, or
            is one that Milvus cannot name.
    """
    rows = _unique_rows(faces)
    buckets = bucket_count(rows)
    shaped = faces.select(
        "face_id",
        "embedding",
        F.pmod(F.xxhash64("face_id"), F.lit(buckets)).alias("bucket"),
        F.lit(purpose_flags).cast("bigint").alias("purposes"),
        F.coalesce(F.unix_timestamp("valid_until"), F.lit(0)).alias("expires_at"),
    )
    seen = Observation("staging")
    checked = shaped.repartition(files_for(rows), "face_id").mapInArrow(_check, _CHECKED_SCHEMA)
    observed = checked.observe(
        seen,
        F.count("*").alias("rows"),
        F.count("fault").alias("faults"),
        F.first("fault", ignorenulls=True).alias("example"),
    )
    observed.where("fault IS NULL").drop("fault").write.mode("overwrite").option("compression", "none").parquet(path)
    _refuse(seen.get, rows)
    return Staged(path, manifest(faces.sparkSession, path), buckets)


def _unique_rows(faces: DataFrame) -> int:
    row = faces.agg(F.count("*").alias("rows"), F.count_distinct("face_id").alias("distinct")).first()
    assert row is not None  # noqa: S101 - an aggregate without groups always has its one row
    if row["distinct"] != row["rows"]:
        twice = row["rows"] - row["distinct"]
        raise NotProvenError(f"staging: {twice} keys stand twice.", hint="run the same run id again.")
    return int(row["rows"])


def _refuse(seen: dict[str, Any], rows: int) -> None:
    if seen["faults"]:
        raise NotProvenError(
            f"staging: {seen['faults']} of {seen['rows']} faces are unusable ({seen['example']}); nothing was loaded.",
            hint="run `reindex --recompute` for this model.",
        )
    if seen["rows"] != rows:
        raise NotProvenError(
            f"staging: {seen['rows']} rows were written where {rows} were counted.", hint="run the same run id again."
        )


def _check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import numpy as np
    import pyarrow as pa

    for batch in batches:
        vectors = batch.column("embedding")
        lengths = np.diff(vectors.offsets.to_numpy())
        fault = np.full(len(batch), None, dtype=object)
        fault[lengths != DIM] = "WRONG_DIMENSION"
        right = np.flatnonzero(lengths == DIM)
        if len(right) == len(batch) and len(batch):
            matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, DIM)
        else:
            matrix = np.array([vectors[int(i)].as_py() for i in right], dtype=np.float32).reshape(-1, DIM)
        norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
        fault[right[~np.isfinite(norms)]] = "NOT_FINITE"
        fault[right[np.isfinite(norms) & (np.abs(norms - 1) > _UNIT_TOLERANCE)]] = "NOT_UNIT_LENGTH"
        keys = batch.column("face_id").to_numpy(zero_copy_only=False)
        fault[(keys < MIN_KEY) | (keys > MAX_KEY)] = "KEY_OUT_OF_RANGE"
        yield pa.RecordBatch.from_arrays(
            [*batch.columns, pa.array(fault.tolist(), pa.string())], names=[*batch.schema.names, "fault"]
        )


def manifest(spark: SparkSession, path: str) -> tuple[StagedFile, ...]:
    """Rows, bytes and SHA-256 of each Parquet file under ``path``, read by executors."""
    root = file_uri(spark, path)
    listing = (
        spark.read.format("binaryFile")
        .option("pathGlobFilter", "*.parquet")
        .load(path)
        .select(F.regexp_replace("path", "^file:/+", "/").alias("path"), F.col("length").alias("bytes"))
    )
    schema = "path string, bytes bigint, rows bigint, sha256 string"
    rows = listing.repartition(max(1, min(64, listing.count()))).mapInArrow(_hash_files, schema).collect()
    ordered = sorted(rows, key=lambda r: str(r["path"]))
    assert all(r["path"].startswith(root) for r in ordered)  # noqa: S101 - Hadoop listed another folder than asked
    return tuple(
        StagedFile(path=r["path"], rows=r["rows"], bytes=r["bytes"], sha256=r["sha256"], file_no=number)
        for number, r in enumerate(ordered)
        if r["rows"]
    )


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


def _hash_files(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in batches:
        paths: Sequence[str] = batch.column("path").to_pylist()
        rows, hashes = [], [sha256_of(path) for path in paths]
        for path in paths:
            with open_stream(path, seekable=True) as stream:
                rows.append(pq.ParquetFile(stream).metadata.num_rows)
        yield pa.RecordBatch.from_arrays(
            [batch.column("path"), batch.column("bytes"), pa.array(rows, pa.int64()), pa.array(hashes, pa.string())],
            names=["path", "bytes", "rows", "sha256"],
        )
