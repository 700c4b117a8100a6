"""A Parquet file as the server reads it: its size, its columns and their types, and the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.store import Columns, dim_of


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
        columns[about.name] = _column(table.column(about.name), about.name, dim_of(about), profile)
    return size, columns


def _column(column: pa.ChunkedArray, name: str, dim: int, profile: Profile) -> np.ndarray:
    """Numbers, or vectors of ``dim`` numbers."""
    kind = column.type
    if not dim:
        if not pa.types.is_signed_integer(kind):
            raise FileFault(f"schema not equal, err=field '{name}' type mis-match, arrow data type get '{kind}'")
        return np.asarray(column.to_numpy(), np.int64)
    lists = pa.types.is_list(kind) or (pa.types.is_fixed_size_list(kind) and profile.has("parquet-fixed-taken"))
    if not (lists and _becomes_float(kind.value_type)):
        raise FileFault(f"schema not equal, err=field '{name}' type mis-match, arrow data type get '{kind}'")
    rows = column.combine_chunks()
    rows = pa.concat_arrays(rows.chunks) if isinstance(rows, pa.ChunkedArray) else rows
    lengths = np.unique(np.asarray(rows.value_lengths().to_numpy(zero_copy_only=False)))
    if len(rows) and lengths.tolist() != [dim]:
        wrong = next(length for length in lengths if length != dim)
        raise FileFault(f"expected {dim} but got {wrong}")
    return np.asarray(rows.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)


def _becomes_float(kind: pa.DataType) -> bool:
    """Arrow's type to float32 by the server's table: floats, and every signed integer."""
    return pa.types.is_float32(kind) or pa.types.is_float64(kind) or pa.types.is_signed_integer(kind)
