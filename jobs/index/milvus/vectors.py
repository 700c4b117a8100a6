"""Vectors of 16-bit numbers, as Milvus stores them, and as float32, as everything else here has them.

Milvus keeps a number of such a vector as two bytes, the lower one first, and takes them as bytes everywhere: in a
Parquet file, over RPC, and in a search (docs/decisions/milvus-servers.md, Vectors of 16 bits).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.index.protocol import NUMBER_BYTES, Vectors, VectorType

#: By how much a number may change by being stored, as a share of itself: half a unit of its last bit. (float16 has 11
#: bits and bfloat16 has 8. Below 6e-5 float16 has fewer; what that takes from a vector of unit length is below 1e-6.)
ROUNDING: Final[dict[VectorType, float]] = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_LARGEST: Final[dict[VectorType, float]] = {"float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.38e38}

Words = npt.NDArray[np.uint16]


def encode(vectors: Vectors, vector_type: VectorType) -> list[bytes]:
    """Each row of ``vectors`` (float32 [n, dim]) as the bytes of a 16-bit type, rounded to the nearest (ties to even).

    Raises:
        ValueError: they are not float32 rows, or hold a number that is none of that type's.
    """
    return [row.tobytes() for row in _words(vectors, vector_type)]


def decode(data: bytes, vector_type: VectorType, dim: int) -> Vectors:
    """Rows of a 16-bit type, one behind the other, as float32 [n, dim], exactly.

    Raises:
        ValueError: they are not whole rows.
    """
    if len(data) % (NUMBER_BYTES[vector_type] * dim):
        raise ValueError("vectors of unequal length in one batch")
    words = np.frombuffer(data, "<u2").reshape(-1, dim)
    if vector_type == "float16":
        return words.view("<f2").astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


def packed(vectors: Vectors, vector_type: VectorType) -> pa.BinaryArray:
    """A column of ``vectors`` (float32 [n, dim]) as a staged file of a 16-bit type has it: one value of bytes a row.

    Not a list of bytes, which Milvus reads as well: Parquet knows no number below 32 bits, so that one would be twice
    as large as float32. Milvus does not check how long such a value is, hence the shape is checked here.

    Raises:
        ValueError: as `encode`.
    """
    words = _words(vectors, vector_type)
    rows, dim = words.shape
    offsets = np.arange(0, (rows + 1) * 2 * dim, 2 * dim, dtype=np.int32) if dim else np.zeros(rows + 1, np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(words.tobytes())]
    return pa.Array.from_buffers(pa.binary(), rows, buffers)


def unpacked(column: pa.Array, vector_type: VectorType, dim: int) -> Vectors:
    """A column of a staged file as float32 [n, dim]: lists of float32, or for a 16-bit type what `packed` made.

    Raises:
        ValueError: it is a column of another type, or of vectors of another length.
    """
    if vector_type == "float32":
        if not pa.types.is_list(column.type):
            raise ValueError("a column of float32 vectors is one of lists")
        _check_lengths(column, column.offsets.to_numpy(), dim)
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)
    if not pa.types.is_binary(column.type):
        raise ValueError(f"a column of {vector_type} vectors is one of bytes")
    _, _, data = column.buffers()
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    _check_lengths(column, offsets, NUMBER_BYTES[vector_type] * dim)
    return decode(data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes(), vector_type, dim)


def _check_lengths(column: pa.Array, offsets: npt.NDArray[np.int32], length: int) -> None:
    if column.null_count or not (np.diff(offsets) == length).all():
        raise ValueError("vectors of unequal length in one batch")


def lists(vectors: Vectors) -> pa.ListArray:
    """A column of float32 lists, one a row of ``vectors`` (float32 [n, dim]): the shape in which rows are inserted."""
    rows, dim = vectors.shape
    offsets = np.arange(0, rows * dim + 1, dim, dtype=np.int32) if dim else np.zeros(rows + 1, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))


def _words(vectors: Vectors, vector_type: VectorType) -> Words:
    if NUMBER_BYTES[vector_type] != 2 or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise ValueError(f"{vectors.ndim} dimensions of {vectors.dtype} are no rows to be made {vector_type}")
    # So that NaN is refused, too: a comparison with it is false.
    if vectors.size and not np.abs(vectors).max() <= _LARGEST[vector_type]:
        raise ValueError(f"a number of these vectors is none of {vector_type}")
    if vector_type == "float16":
        return np.ascontiguousarray(vectors.astype("<f2")).view("<u2")
    bits = np.ascontiguousarray(vectors, "<f4").view("<u4")
    # The upper half of a float32; what is cut off rounds it up from one half on, and at one half to the even neighbour.
    return np.asarray(((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2"))
