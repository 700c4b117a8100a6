"""A Parquet file as the server reads it: its size, its columns and their types, and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymilvus.grpc_gen import schema_pb2

from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.store import NUMBERS, Columns, as_numbers, dim_of


class FileFault(Exception):
    """Why a file fails its job."""


def read_rows(path: Path, schema: Any, profile: Profile, max_bytes: int) -> tuple[int, Columns]:
    """Bytes of a file, and its rows.

    Raises:
        FileFault: it is not there, too large, no Parquet file, or not of the collection's schema.
    """
    if not path.is_file():
        raise FileFault("key not found")
    size = path.stat().st_size
    if size > max_bytes:
        raise FileFault(
            "The import file size has reached the maximum limit allowed for importing, "
            f"fileSize={size}, maxSize={max_bytes}"
        )
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise FileFault(f"new parquet reader failed, err={type(error).__name__}") from None
    names = [about.name for about in schema.fields]
    extra = sorted(set(table.column_names) - set(names))
    if extra and profile.has("parquet-extra-refused"):
        raise FileFault(f"the field: {extra[0]} is not in schema")
    columns: Columns = {}
    for about in schema.fields:
        if about.name not in table.column_names:
            raise FileFault(f"schema not equal, err=field '{about.name}' not in arrow schema")
        columns[about.name] = _column(table.column(about.name), about, profile)
    if {len(values) for values in columns.values()} != {table.num_rows}:
        raise FileFault("imported rows are not aligned")
    return size, columns


def _column(column: pa.ChunkedArray, about: Any, profile: Profile) -> np.ndarray:
    """Numbers, or vectors of a field's dimension in the field's type."""
    dim, kind = dim_of(about), column.type
    mismatch = FileFault(f"schema not equal, err=field '{about.name}' type mis-match, arrow data type get '{kind}'")
    if not dim:
        if not pa.types.is_signed_integer(kind):
            raise mismatch
        return np.asarray(column.to_numpy(), np.int64)
    lists = pa.types.is_list(kind) or (pa.types.is_fixed_size_list(kind) and profile.has("parquet-fixed-taken"))
    if about.data_type == schema_pb2.DataType.FloatVector:
        if not (lists and _becomes_float(kind.value_type)):
            raise mismatch
        return np.asarray(_in_line(column, dim), np.float32).reshape(-1, dim)
    if pa.types.is_binary(kind):
        # One behind the other, however long each is.
        return _words(b"".join(column.to_pylist()), about)
    if lists and pa.types.is_uint8(kind.value_type):
        return _words(np.asarray(_in_line(column, 2 * dim), np.uint8).tobytes(), about)
    if lists and pa.types.is_floating(kind.value_type) and profile.has("half-parquet-floats-taken"):
        return as_numbers(np.asarray(_in_line(column, dim), np.float32).reshape(-1, dim), about)
    raise mismatch


def _in_line(column: pa.ChunkedArray, length: int) -> np.ndarray:
    """Values of lists that are all of one length."""
    rows = column.combine_chunks()
    rows = pa.concat_arrays(rows.chunks) if isinstance(rows, pa.ChunkedArray) else rows
    lengths = np.unique(np.asarray(rows.value_lengths().to_numpy(zero_copy_only=False)))
    if len(rows) and lengths.tolist() != [length]:
        wrong = next(each for each in lengths if each != length)
        raise FileFault(f"length of vector is not aligned: expected {length} but got {wrong}")
    return np.asarray(rows.flatten().to_numpy(zero_copy_only=False))


def _words(data: bytes, about: Any) -> np.ndarray:
    numbers = NUMBERS[about.data_type]
    whole = len(data) // (numbers.itemsize * dim_of(about))
    return np.frombuffer(data, numbers, whole * dim_of(about)).reshape(-1, dim_of(about))


def _becomes_float(kind: pa.DataType) -> bool:
    """Arrow's type to float32 by the server's table: floats, and every signed integer."""
    return pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_signed_integer(kind)
