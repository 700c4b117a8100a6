"""Looks for bytes in every file of a place: shows that what was erased is physically gone (Guarantee 10).

A file is searched as it is. Where it is, or holds, Parquet (Delta's tables and checkpoints, staged files, and the
payloads of Milvus's binlogs), its pages are decompressed and the values searched too: a compressed value is found by no
search of bytes. Files that no table version refers to any more are searched like all others.

Values that nobody may keep are looked for by their tombstones: every text and number of a column that could hold one is
keyed and compared.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, keyed_text
from jobs.tables.store import materialise
from udfs.reading import file_system, open_stream

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC: Final = b"PAR1"
_SHARE_BYTES: Final = 64 * 2**20
_LISTED: Final = "uri string, byte_size bigint"
FOUND_SCHEMA: Final = "needle string, file string, place string"
#: Columns whose values are compared with tombstones, and the kinds that they may be.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "image_id": (IMAGE,),
    "value": (IMAGE, CONTENT, FACE, SUBJECT),
    "content_sha256": (CONTENT,),
    "face_id": (FACE,),
    "pii_principal_id": (SUBJECT,),
    "principal": (SUBJECT,),
}


def scan(
    spark: SparkSession,
    places: Sequence[str],
    needles: Mapping[str, bytes],
    *,
    keys: Mapping[str, bytes] | None = None,
    tombstones: Sequence[str] = (),
) -> DataFrame:
    """Where ``needles`` (by name), or values of ``tombstones`` (digests under ``keys``), stand: needle, file, place.

    By executors, one file at a time; ``places`` are folders or prefixes that they can read.
    """
    files = materialise(_files(spark, places))
    size = files.agg(F.sum("byte_size").alias("bytes")).first()
    # A task of its own for each small file would cost more than its search.
    least = spark.sparkContext.defaultParallelism
    shares = max(least, math.ceil((size["bytes"] or 0) / _SHARE_BYTES)) if size else least
    search = _searching(dict(needles), dict(keys or {}), frozenset(tombstones))
    return files.repartition(shares).mapInArrow(search, FOUND_SCHEMA)


def _files(spark: SparkSession, places: Sequence[str]) -> DataFrame:
    rows = spark.createDataFrame([(place, True) for place in places], "uri string, recursive boolean")
    return rows.repartition(len(places)).mapInArrow(_list_all, _LISTED)


def _list_all(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Every file, hidden ones too (Delta's checksums, lost uploads); a place that is not there has none."""
    import pyarrow as pa
    from pyarrow import fs

    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            system, path, prefix = file_system(uri)
            selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
            found = [i for i in system.get_file_info(selector) if i.type == fs.FileType.File]
            if not found and system.get_file_info(path).type == fs.FileType.File:
                found = [system.get_file_info(path)]
            names = pa.array([prefix + i.path for i in found], pa.string())
            sizes = pa.array([i.size for i in found], pa.int64())
            yield pa.RecordBatch.from_arrays([names, sizes], names=["uri", "byte_size"])


def _searching(
    needles: dict[str, bytes], keys: dict[str, bytes], tombstones: frozenset[str]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for uri in batch.column("uri").to_pylist():
                hits = sorted(set(_search(uri, needles, keys, tombstones)))
                columns = list(zip(*[(n, uri, p) for n, p in hits], strict=True)) or [(), (), ()]
                yield pa.RecordBatch.from_arrays(
                    [pa.array(list(c), pa.string()) for c in columns], names=["needle", "file", "place"]
                )

    return run


def _search(
    uri: str, needles: dict[str, bytes], keys: dict[str, bytes], tombstones: frozenset[str]
) -> Iterator[tuple[str, str]]:
    try:
        with open_stream(uri) as stream:
            data = stream.read()
    except FileNotFoundError:
        return  # removed since it was listed
    yield from ((name, "bytes") for name, needle in needles.items() if needle in data)
    for table in _parquet_in(data):
        for column, values in zip(table.column_names, table.columns, strict=True):
            for piece in _buffers(values):
                yield from ((name, column) for name, needle in needles.items() if needle in piece)
            if tombstones and column in _COLUMNS:
                yield from ((f"tombstone of {kind}", column) for kind in _stones(values, column, keys, tombstones))


def _parquet_in(data: bytes) -> Iterator[pa.Table]:
    """Parquet files in a file: the whole of it, or pieces between two magic words, as in Milvus's binlogs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    marks, at = [], data.find(_MAGIC)
    while at >= 0:
        marks.append(at)
        at = data.find(_MAGIC, at + 1)
    begin = 0
    while begin < len(marks):
        for end in range(begin + 1, len(marks)):
            piece = data[marks[begin] : marks[end] + len(_MAGIC)]
            try:
                # No threads: this process was forked, and holds one file at a time.
                yield pq.ParquetFile(pa.BufferReader(piece), pre_buffer=False).read(use_threads=False)
            except (pa.ArrowInvalid, OSError):
                continue  # the mark was none: it may stand in a value by chance
            begin = end
            break
        begin += 1


def _buffers(values: pa.ChunkedArray) -> Iterator[bytes]:
    """The values of a column, one after the other, as bytes; nested ones included."""
    for chunk in values.chunks:
        for buffer in chunk.buffers():
            if buffer is not None:
                yield buffer.to_pybytes()


def _stones(values: pa.ChunkedArray, column: str, keys: dict[str, bytes], tombstones: frozenset[str]) -> Iterator[str]:
    for value in values.to_pylist():
        for kind in _COLUMNS[column]:
            text = keyed_text(kind, value)
            if text is not None and any(hmac.digest(key, text, "sha256").hex() in tombstones for key in keys.values()):
                yield kind


def places_of(warehouse: Any, settings: Any, staged: Sequence[str] = ()) -> list[str]:
    """Where this program keeps data: the warehouse, staged files (``staged``: also there), and an embedded index."""
    from jobs.tables.sources import file_uri

    found = [warehouse.location] if warehouse.is_path else []
    named = [settings.staging.path] if settings.staging.path else []
    found += [place for place in dict.fromkeys((*named, *staged)) if not place.startswith(f"{warehouse.location}/")]
    if settings.embedded:
        found.append(str(settings.index_file.resolve()))
    return [file_uri(warehouse.spark, place) for place in found]
