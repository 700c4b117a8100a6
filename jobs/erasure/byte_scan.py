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

import bisect
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

from jobs.erasure.parquet_chunks import chunks_of
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
#: What Milvus's binlogs begin with (0xFFFABC), and the type of an event that holds a part of an index.
_BINLOG: Final = (0xFFFABC).to_bytes(4, "little")
_INDEX_EVENT: Final = b"\x07"
#: How footers and pages begin: the head of field 1, of 32 bits (Thrift's compact protocol).
_FIRST_IS_I32: Final = b"\x15"
#: How often the bytes of a file are looked at in search of Parquet that begins and ends anywhere. Once is the rule.
_EFFORT: Final = 32
#: What opening a piece costs, in bytes that could be read meanwhile, and a byte of a footer.
_OPENING_BYTES: Final = 512
_FOOTER_COSTS: Final = 8
#: Marks that may be the begin of one piece: so many are looked at, and so many tried; and the chunks compared for that.
_MARKS_SEEN, _MARKS_TRIED, _CHUNKS_SEEN = 64, 4, 8
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

    Of a file named ``*.parquet`` the whole has to be one, if it is not empty; in a binlog each mark belongs to one.
    What lies in a piece that was read or is told of is searched where it can be, and is no finding of its own.
    """
    pieces = _Pieces(data)
    unread: set[str] = set()
    whole = not data or not uri.lower().endswith(".parquet")
    for footer in pieces.footers():
        begin, failed = yield from _search_piece(pieces, footer, look)
        whole = whole or pieces.is_whole(footer)
        if not pieces.is_told(footer):
            unread |= failed
        pieces.tell(begin, footer)
    if not whole or pieces.is_given_up or (_is_binlog(data) and pieces.has_untold()):
        unread.add("footer")
    return unread


def _search_piece(
    pieces: _Pieces, footer: _Footer, look: _Look
) -> Generator[tuple[str, str], None, tuple[int, set[str]]]:
    """Search what a footer describes: where it begins, and what could not be read of it.

    Where it may begin at several marks, the one with which the most is readable counts. None fits: its "footer" is all
    that is there of it.
    """
    best: tuple[int, set[str]] | None = None
    for begin in pieces.begins(footer):
        failed = yield from look.through(pieces.opened(begin, footer))
        if not failed:
            pieces.close(begin, footer)
            return begin, failed
        if best is None or len(failed) < len(best[1]):
            best = begin, failed
    return best or (footer.begin, {"footer"} if footer.metadata.num_row_groups else set())


def _is_binlog(data: bytes) -> bool:
    """Whether a file is a binlog of Milvus whose values are Parquet: all but an index's, whose bytes are as they are.

    A magic number, a descriptor event, further ones; an event: time (8 bytes), type (1), length (4), next position (4).
    Read in milvus: internal/storage/binlog_writer.go; internal/core/src/storage/Event.cpp BaseEventData::Serialize.
    """
    second = len(_BINLOG) + int.from_bytes(data[13:17], "little")
    return data.startswith(_BINLOG) and data[second + 8 : second + 9] != _INDEX_EVENT


@dataclass(frozen=True)
class _Footer:
    """A footer that is understood, where it begins and where the mark behind it ends (byte offsets in the file).

    ``chunks``: from where to where each column of each row group has its pages, counted from where its file begins;
    ``edges`` are the same, sorted, with those that touch or overlap as one.
    """

    begin: int
    end: int
    metadata: pq.FileMetaData
    chunks: list[tuple[int, int]]
    edges: list[tuple[int, int]]

    @classmethod
    def of(cls, begin: int, end: int, metadata: pq.FileMetaData, chunks: list[tuple[int, int]]) -> _Footer:
        """The footer, with the edges of its chunks."""
        edges: list[tuple[int, int]] = []
        for first, last in sorted(chunks):
            if edges and first <= edges[-1][1]:
                edges[-1] = edges[-1][0], max(last, edges[-1][1])
            else:
                edges.append((first, last))
        return cls(begin, end, metadata, chunks, edges)

    @property
    def last_begin(self) -> int:
        """The last place where its file may begin: the mark there and all chunks stand before the footer."""
        return self.begin - (self.edges[-1][1] if self.edges else len(_MAGIC))


def _chunks_of(footer: bytes) -> list[tuple[int, int]]:
    """The places of the chunks, if they are told: pyarrow may still understand what is damaged."""
    try:
        return chunks_of(footer)
    except ValueError:
        return []


class _Pieces:
    """The Parquet files in the bytes of a file: the whole of it, or pieces between two marks.

    Marks stand in values, too: by chance, or because somebody has put a million of them, or a whole Parquet file, into
    a picture. So it goes from the last one forward: the four bytes before a mark say where its footer begins, which is
    understood or not, once; the places of the chunks say where its file begins. No other mark in chunks that were read
    is looked at. What still makes more work than `_EFFORT` is given up, which is a finding.
    """

    def __init__(self, data: bytes) -> None:
        import pyarrow as pa

        self._data, self._held = data, pa.py_buffer(data)
        self._marks = [found.start() for found in re.finditer(_MAGIC, data)]
        self._closed, self._told = bytearray(len(self._marks)), bytearray(len(self._marks))
        self._effort = _EFFORT * (len(data) + _OPENING_BYTES)
        self.is_given_up = False

    def footers(self) -> Iterator[_Footer]:
        """What is understood as a footer, the last one first; it leaves out what was closed meanwhile."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for at in reversed(range(len(self._marks))):
            mark = self._marks[at]
            begin = mark - 4 - int.from_bytes(self._data[max(mark - 4, 0) : mark], "little")
            # Every writer begins with the version, field 1, an i32. Before a footer at least a mark stands.
            if self._closed[at] or begin < len(_MAGIC) or self._data[begin : begin + 1] != _FIRST_IS_I32:
                continue
            if not self._may(_FOOTER_COSTS * (mark - begin)):
                return
            held = self._held.slice(begin - len(_MAGIC), mark - begin + 2 * len(_MAGIC))
            try:
                metadata = pq.read_metadata(pa.BufferReader(held))
                footer = _Footer.of(begin, mark + len(_MAGIC), metadata, _chunks_of(self._data[begin : mark - 4]))
            except (pa.ArrowException, OSError, ValueError):
                continue  # the mark was none: it may stand in a value by chance
            yield footer

    def begins(self, footer: _Footer) -> Iterator[int]:
        """Marks where the file of a footer may begin, the likely ones first, and not many."""
        first = self._marks[0]
        likely = [first] if self.is_whole(footer) else []
        at = bisect.bisect_right(self._marks, footer.last_begin)
        near = range(at - 1, max(at - 1 - _MARKS_SEEN, -1), -1)
        likely += [self._marks[i] for i in near if not self._closed[i] and self._has_pages(self._marks[i], footer)]
        for begin in dict.fromkeys((*likely[:_MARKS_TRIED], *([first] if first <= footer.last_begin else []))):
            if not self._may(sum(last - start for start, last in footer.chunks)):
                return
            yield begin

    def opened(self, begin: int, footer: _Footer) -> pq.ParquetFile:
        """The file of a footer, if it begins there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = pa.BufferReader(self._held.slice(begin, footer.end - begin))
        # A page with a checksum, as Spark writes them, is compared with it.
        return pq.ParquetFile(held, metadata=footer.metadata, pre_buffer=False, page_checksum_verification=True)

    def close(self, begin: int, footer: _Footer) -> None:
        """Look at no mark in the chunks of what was read, nor in its footer."""
        for first, last in (*((begin + a, begin + b) for a, b in footer.edges), (footer.begin, footer.end - 8)):
            self._fill(self._closed, first, last)

    def tell(self, begin: int, footer: _Footer) -> None:
        """Note that the marks from there on belong to something that is read, or told as not readable."""
        self._fill(self._told, begin, footer.end)

    def is_told(self, footer: _Footer) -> bool:
        """Whether a footer stands in a piece that was told of."""
        return bool(self._told[bisect.bisect_left(self._marks, footer.end - len(_MAGIC))])

    def has_untold(self) -> bool:
        """Whether a mark belongs to no piece."""
        return 0 in self._told

    def is_whole(self, footer: _Footer) -> bool:
        """Whether the whole file may be what a footer describes."""
        return footer.end == len(self._data) and self._data.startswith(_MAGIC)

    def _has_pages(self, begin: int, footer: _Footer) -> bool:
        """Whether pages stand where they should if the file begins there: each begins with field 1, an i32."""
        firsts = (begin + first for first, _ in footer.chunks[:_CHUNKS_SEEN])
        return all(self._data[at : at + 1] == _FIRST_IS_I32 for at in firsts)

    def _may(self, size: int) -> bool:
        self._effort -= _OPENING_BYTES + size
        self.is_given_up = self.is_given_up or self._effort < 0
        return not self.is_given_up

    def _fill(self, flags: bytearray, first: int, last: int) -> None:
        a, b = bisect.bisect_left(self._marks, first), bisect.bisect_left(self._marks, last)
        flags[a:b] = b"\1" * (b - a)


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
    """The values of a column, one after the other, as bytes; nested ones included, and those of dictionaries."""
    for chunk in values.chunks:
        for array in (chunk, *_dictionaries(chunk)):
            for buffer in array.buffers():
                if buffer is not None:
                    yield buffer.to_pybytes()


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries in a column, which no buffer of it holds: each value once, as it stands in the file.

    Parquet brings back dictionaries of text and bytes only (a pandas Categorical, say), at any depth.
    """
    import pyarrow as pa

    type_ = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _dictionaries(array.storage)
    elif pa.types.is_dictionary(type_):
        yield array.dictionary
    elif pa.types.is_struct(type_):
        for at in range(type_.num_fields):
            yield from _dictionaries(array.field(at))
    elif pa.types.is_map(type_):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif type_.num_fields:
        yield from _dictionaries(array.values)


def places_of(warehouse: Any, settings: Any, staged: Sequence[str] = ()) -> list[str]:
    """Where this program keeps data: the warehouse, staged files (``staged``: also there), and an embedded index."""
    from jobs.tables.sources import file_uri

    found = [warehouse.location] if warehouse.is_path else []
    named = [settings.staging.path] if settings.staging.path else []
    found += [place for place in dict.fromkeys((*named, *staged)) if not place.startswith(f"{warehouse.location}/")]
    if settings.embedded:
        found.append(str(settings.index_file.resolve()))
    return [file_uri(warehouse.spark, place) for place in found]
