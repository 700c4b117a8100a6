"""Looks for bytes in every file of a place: shows that what was erased is physically gone (Guarantee 10).

A file is searched as it is. Where it is, or holds, Parquet (Delta's tables and checkpoints, staged files, and the
payloads of Milvus's binlogs), its pages are decompressed and the values searched too: a compressed value is found by no
search of bytes. Files that no table version refers to any more are searched like all others. What should be Parquet and
cannot be read has not been searched, and is a finding itself.

Values that nobody may keep are looked for by their tombstones: every text and number of a column that could hold one is
keyed and compared. Columns are known by name, and keys of faces by their type, too: each int64 is compared.

In a Milvus server's own bucket that finds keys and bytes in insert binlogs (a header, then Parquet with zstd, whose one
column is called `val` or by its field's id, such as `100`), in the Parquet of storage version 2 (columns by id), and
in delete logs (`pk`, or text in `delta`). Not what is encrypted, nor what is compressed otherwise: indexes, and the
server's queue. Read in milvus of August 2026: internal/storage/payload_writer.go FinishPayloadWriter; serde.go
newSingleFieldRecordWriter; serde_delta.go; record_writer.go.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import SettingsError
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, keyed_text
from jobs.index.protocol import SCALARS
from jobs.schemas import ALL_TABLES
from jobs.tables.store import materialise
from udfs.reading import ReadFailure, file_system, open_stream

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAGIC: Final = b"PAR1"
_SHARE_BYTES: Final = 64 * 2**20
_LISTED: Final = "named string, uri string, byte_size bigint"
_ROWS: Final = 65_536
FOUND_SCHEMA: Final = "needle string, file string, place string"
#: In place of a needle: a file, or a column of it, that should be Parquet and could not be searched.
UNREADABLE: Final = "unreadable Parquet"
#: Seconds until what could not be read is looked at again, for it may be written at this moment.
AGAIN_S: Final = 1.0
#: Of Milvus's delete logs up to 2.5: each value is JSON with a key and a time, or both with a comma between.
_DELETES: Final = "delta"
#: Columns whose values are compared with tombstones, and the kinds that they may be.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "image_id": (IMAGE,),
    "value": (IMAGE, CONTENT, FACE, SUBJECT),
    "content_sha256": (CONTENT,),
    "face_id": (FACE,),
    "pii_principal_id": (SUBJECT,),
    "principal": (SUBJECT,),
    _DELETES: (FACE,),
}
#: Columns of this program's own int64 that are no keys.
_NO_KEYS: Final = frozenset(re.findall(r"(\w+) bigint", ", ".join(t.columns for t in ALL_TABLES))) | {*SCALARS}


def scan(
    spark: SparkSession,
    places: Sequence[str],
    needles: Mapping[str, bytes],
    *,
    keys: Mapping[str, bytes] | None = None,
    tombstones: Sequence[str] = (),
) -> DataFrame:
    """Where ``needles`` (by name), or values of ``tombstones`` (digests under ``keys``), stand: needle, file, place.

    By executors, one file at a time; ``places`` are folders or prefixes that they can read. Beside needles stands
    `UNREADABLE`.
    """
    files = materialise(_files(spark, places))
    size = files.agg(F.sum("byte_size").alias("bytes")).first()
    # A task of its own for each small file would cost more than its search.
    least = spark.sparkContext.defaultParallelism
    shares = max(least, math.ceil((size["bytes"] or 0) / _SHARE_BYTES)) if size else least
    search = _searching(dict(needles), dict(keys or {}), frozenset(tombstones))
    return files.repartition(shares).mapInArrow(search, FOUND_SCHEMA)


def refuse_empty(spark: SparkSession, places: Sequence[str]) -> None:
    """Make sure that executors see a file at each of ``places``, which somebody named: nothing is proven of a typo.

    Raises:
        SettingsError: at one of them is none, or it is no place that can be searched.
    """
    for place in places:
        try:
            file_system(place)
        except ReadFailure:
            raise SettingsError(f"--place {place}: neither a local path nor s3:// nor s3a://.") from None
    if places:
        _refuse_unseen(places, {row["named"] for row in _files(spark, places).select("named").distinct().collect()})


def _refuse_unseen(places: Sequence[str], seen: Collection[str]) -> None:
    if unseen := [place for place in places if place not in seen]:
        raise SettingsError(
            f"No file at --place {', '.join(unseen)}: nothing would be searched there.",
            hint="look for a typing error; it has to be a folder, a prefix or a file that executors can read.",
        )


def _files(spark: SparkSession, places: Sequence[str]) -> DataFrame:
    rows = spark.createDataFrame([(place, True) for place in places], "uri string, recursive boolean")
    return rows.repartition(len(places)).mapInArrow(_list_all, _LISTED)


def _list_all(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Every file, hidden ones too (Delta's checksums, lost uploads); a place that is not there has none.

    Of this program's own places one may be gone (a staging folder); of those that somebody names: `refuse_empty`.
    """
    import pyarrow as pa
    from pyarrow import fs

    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            system, path, prefix = file_system(uri)
            found = [system.get_file_info(path)]
            if found[0].type != fs.FileType.File:
                selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
                found = [i for i in system.get_file_info(selector) if i.type == fs.FileType.File]
            names = pa.array([prefix + i.path for i in found], pa.string())
            sizes = pa.array([i.size for i in found], pa.int64())
            named = pa.array([uri] * len(found), pa.string())
            yield pa.RecordBatch.from_arrays([named, names, sizes], names=["named", "uri", "byte_size"])


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
    """What stands in a file, and where in it: (needle, place). A file that is removed meanwhile holds nothing.

    Parquet that cannot be read has not been searched, which is a finding (`UNREADABLE`), unless it is being written:
    one that has changed since it was read is read again.
    """
    before = b""
    while (data := _bytes_of(uri)) is not None:
        yield from ((name, "bytes") for name, needle in needles.items() if needle in data)
        unread = yield from _search_parquet(uri, data, _Look(needles, keys, tombstones))
        if not unread:
            return
        digest = hashlib.sha256(data).digest()
        if digest == before:
            yield from ((UNREADABLE, place) for place in unread)
            return
        before = digest
        del data
        time.sleep(AGAIN_S)


def _bytes_of(uri: str) -> bytes | None:
    try:
        with open_stream(uri) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _search_parquet(uri: str, data: bytes, look: _Look) -> Generator[tuple[str, str], None, set[str]]:
    """Search the Parquet files in a file; what of them could not be read: columns, or "footer".

    Of a file named ``*.parquet`` the whole has to be one, if it is not empty. One whose footer is understood may begin
    at a later mark, if its columns are not: the first may stand before it by chance. In one that was read no other
    begins.
    """
    unread: dict[int, set[str]] = {}
    searched = 0
    whole = not data or not uri.lower().endswith(".parquet")
    for begin, end, file in _parquet_in(data):
        if begin < searched:
            continue
        failed = yield from look.through(file)
        if failed:
            unread[end] = unread.get(end, set()) | failed
        else:
            unread.pop(end, None)
            searched = end
        whole = whole or (begin, end) == (0, len(data))
    return set().union(*unread.values(), () if whole else ("footer",))


def _parquet_in(data: bytes) -> Iterator[tuple[int, int, pq.ParquetFile]]:
    """Parquet files in a file, with where they begin and end: the whole of it, or pieces between two magic words.

    Each piece whose footer is understood, also such as overlap.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    marks, at = [], data.find(_MAGIC)
    while at >= 0:
        marks.append(at)
        at = data.find(_MAGIC, at + 1)
    held = pa.py_buffer(data)
    for begin, first in enumerate(marks):
        for last in marks[begin + 1 :]:
            piece = held.slice(first, last + len(_MAGIC) - first)
            try:
                # A page with a checksum, as Spark writes them, is compared with it.
                file = pq.ParquetFile(pa.BufferReader(piece), pre_buffer=False, page_checksum_verification=True)
            except (pa.ArrowException, OSError, ValueError):
                continue  # the mark was none: it may stand in a value by chance
            yield first, last + len(_MAGIC), file
            break


@dataclass(frozen=True)
class _Look:
    """What is looked for in columns: ``needles`` by name, and values whose digest under ``keys`` is a tombstone."""

    needles: dict[str, bytes]
    keys: dict[str, bytes]
    tombstones: frozenset[str]

    def through(self, file: pq.ParquetFile) -> Generator[tuple[str, str], None, set[str]]:
        """Search one column of one row group after the other; the names of columns that could not be read."""
        import pyarrow as pa

        try:
            columns = list(dict.fromkeys(file.schema_arrow.names))
        except (pa.ArrowException, ValueError):
            return {"schema"}
        failed: set[str] = set()
        for group in range(file.num_row_groups):
            for column in columns:
                try:
                    # No threads: this process was forked, and holds one column at a time.
                    read = file.read_row_group(group, columns=[column], use_threads=False)
                    yield from self._in_column(column, read)
                except (pa.ArrowException, OSError, ValueError):
                    failed.add(column)
        return failed

    def _in_column(self, column: str, read: pa.Table) -> Iterator[tuple[str, str]]:
        for values in read.columns:
            for piece in _buffers(values) if self.needles else ():
                yield from ((name, column) for name, needle in self.needles.items() if needle in piece)
            kinds = _kinds_of(column, values.type) if self.tombstones else ()
            for value in _values_of(column, values) if kinds else ():
                yield from ((f"tombstone of {kind}", column) for kind in kinds if self._is_stone(kind, value))

    def _is_stone(self, kind: str, value: object) -> bool:
        text = keyed_text(kind, value)
        return text is not None and any(
            hmac.digest(key, text, "sha256").hex() in self.tombstones for key in self.keys.values()
        )


def _kinds_of(column: str, type_: pa.DataType) -> tuple[str, ...]:
    """What a column's values may be. Keys of faces are told by their type: Milvus names a column by its field's id."""
    import pyarrow as pa

    kinds = _COLUMNS.get(column, ())
    may_be_key = pa.types.is_int64(type_) and column not in _NO_KEYS and FACE not in kinds
    return (*kinds, FACE) if may_be_key else kinds


def _values_of(column: str, values: pa.ChunkedArray) -> Iterator[object]:
    for chunk in values.chunks:
        for start in range(0, len(chunk), _ROWS):
            for value in chunk.slice(start, _ROWS).to_pylist():
                if column == _DELETES and isinstance(value, str):
                    yield from re.findall(r"-?\d+", value)
                else:
                    yield value


def _buffers(values: pa.ChunkedArray) -> Iterator[bytes]:
    """The values of a column, one after the other, as bytes; nested ones included."""
    for chunk in values.chunks:
        for buffer in chunk.buffers():
            if buffer is not None:
                yield buffer.to_pybytes()


def places_of(warehouse: Any, settings: Any, staged: Sequence[str] = ()) -> list[str]:
    """Where this program keeps data: the warehouse, staged files (``staged``: also there), and an embedded index."""
    from jobs.tables.sources import file_uri

    found = [warehouse.location] if warehouse.is_path else []
    named = [settings.staging.path] if settings.staging.path else []
    found += [place for place in dict.fromkeys((*named, *staged)) if not place.startswith(f"{warehouse.location}/")]
    if settings.embedded:
        found.append(str(settings.index_file.resolve()))
    return [file_uri(warehouse.spark, place) for place in found]
