"""Staged files as the driver of a load sees them: their hash, their keys, and the name a server knows them by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from jobs.errors import DependencyUnavailable, NotProvenError
from jobs.index.milvus.vectors import lists, unpacked
from jobs.index.protocol import KEY, NUMBER_BYTES, VECTOR, Keys, VectorType
from udfs.reading import open_stream

READ_BYTES = 8 * 2**20
READ_ROWS = 4_000
REBUILD = "drop this collection and load into a fresh one (a new run id, or `load` after the drop)."


class RebuildNeeded(NotProvenError):
    """A collection may hold part of a file, or a file twice: drop it and load into a fresh one."""


@dataclass(frozen=True)
class StagedFile:
    """One Parquet file of staging, as its manifest describes it."""

    path: str
    rows: int
    bytes: int
    sha256: str
    file_no: int
    buckets: tuple[int, int] | None = None


def import_path(uri: str) -> str:
    """The name that a Milvus server knows a file by.

    Local storage takes absolute paths; with object storage it is the key inside the bucket that Milvus is set to.

    >>> import_path("s3a://bucket/staging/r1/part-0.parquet")
    'staging/r1/part-0.parquet'
    >>> import_path("file:///data/part-0.parquet")
    '/data/part-0.parquet'
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return str(_local(uri))
    return unquote(parts.path).lstrip("/")


def sha256_of(uri: str) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open_file(uri) as stream:
        while piece := stream.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def check_file(file: StagedFile, digest: str) -> None:
    """Refuse a file that is not the one that staging wrote (Milvus imports one with flipped bytes).

    Raises:
        NotProvenError: naming the file.
    """
    if digest != file.sha256:
        raise NotProvenError(
            f"Staged file {file.file_no} ({file.path}) is not the file that was staged: its SHA-256 differs.",
            hint="run `load` again with a new run id; nothing of this file was imported.",
        )


def check_rows(file: StagedFile, rows: int) -> None:
    """Refuse a file whose rows are not as many as its manifest says."""
    if rows != file.rows:
        raise RebuildNeeded(
            f"Staged file {file.file_no} holds {rows} rows where its manifest says {file.rows}.", hint=REBUILD
        )


def read_batches(file: StagedFile, vector_type: VectorType = "float32") -> Iterator[pa.RecordBatch]:
    """The file's rows, a few thousand at a time, with vectors of float32 whatever type they were staged in."""
    import pyarrow.parquet as pq

    with open_file(file.path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=READ_ROWS):
            yield batch if vector_type == "float32" else _as_float32(batch, vector_type)


def _as_float32(batch: pa.RecordBatch, vector_type: VectorType) -> pa.RecordBatch:
    place = batch.schema.get_field_index(VECTOR)
    column = batch.column(place)
    dim = len(column[0].as_py()) // NUMBER_BYTES[vector_type] if len(column) else 1
    return batch.set_column(place, VECTOR, lists(unpacked(column, vector_type, dim)))


def read_keys(file: StagedFile) -> Keys:
    """The file's keys, in its order."""
    import pyarrow.parquet as pq

    with open_file(file.path) as stream:
        column = pq.read_table(stream, columns=[KEY]).column(KEY)
    return np.asarray(column.to_numpy(), dtype=np.int64)


def open_file(uri: str) -> Any:
    """A seekable binary stream over a local or remote file.

    Raises:
        DependencyUnavailable: it cannot be opened.
    """
    try:
        return open_stream(uri, seekable=True)
    except (OSError, pa.ArrowException) as error:
        raise DependencyUnavailable(
            f"Staged file {uri} cannot be opened ({type(error).__name__}).",
            hint="check that the staging path is reachable; if it was cleaned, load with a new run id.",
        ) from None


def _local(uri: str) -> Path:
    path = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
    return Path(path).absolute()
