"""Looks for bytes in every file of a place: shows that what was erased is physically gone (Guarantee 10).

A file is searched as it is. Where it is, or holds, Parquet (Delta's tables and checkpoints, staged files, and the
payloads of Milvus's binlogs), its pages are decompressed and the values searched too: a compressed value is found by no
search of bytes. Files that no table version refers to any more are searched like all others. What should be Parquet and
cannot be read has not been searched, and is a finding itself; so is a file that cannot be read at all.

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
import math
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.erasure.parquet_columns import Hit, Look
from jobs.erasure.parquet_pieces import Footer, Pieces
from jobs.erasure.place_files import files_at
from jobs.erasure.sieve import Sieve
from jobs.errors import SettingsError
from jobs.tables.store import looked_up, materialise
from udfs.reading import ReadFailure, file_system, open_stream, reason_of, usable_address

if TYPE_CHECKING:
    import pyarrow as pa

#: What Milvus's binlogs begin with (0xFFFABC), and the type of an event that holds a part of an index.
_BINLOG: Final = (0xFFFABC).to_bytes(4, "little")
_INDEX_EVENT: Final = b"\x07"
#: How Parquet begins, and that whose footer is encrypted.
_BEGINS: Final = (b"PAR1", b"PARE")
_SHARE_BYTES: Final = 64 * 2**20
_LISTED: Final = "named string, uri string, byte_size bigint, reason string"
_LISTED_ROWS: Final = 10_000
FOUND_SCHEMA: Final = "needle string, file string, place string"
#: In place of a needle: a file, or a column of it, that should be Parquet and could not be searched.
UNREADABLE: Final = "unreadable Parquet"
#: In place of a needle: a file, or a folder, of which nothing was searched; its place is the reason.
NOT_SEARCHED: Final = "file that cannot be read"
#: Seconds until what could not be read is looked at again, for it may be written at this moment.
AGAIN_S: Final = 1.0


def scan(
    spark: SparkSession,
    places: Sequence[str],
    needles: Mapping[str, bytes],
    *,
    keys: Mapping[str, bytes] | None = None,
    tombstones: DataFrame | None = None,
) -> DataFrame:
    """Where ``needles`` (by name), or values of ``tombstones`` (`digest` under ``keys``), stand: needle, file, place.

    By executors, one file at a time; ``places`` are folders or prefixes that they can read. Beside needles stand
    `UNREADABLE` and `NOT_SEARCHED`.
    """
    stones = None if tombstones is None else tombstones.select("digest").distinct()
    count = 0 if stones is None else stones.count()
    sieve = Sieve() if stones is None else Sieve.of(stones, count)
    files = materialise(_files(spark, places))
    size = files.agg(F.sum("byte_size").alias("bytes")).first()
    # A task of its own for each small file would cost more than its search.
    least = spark.sparkContext.defaultParallelism
    shares = max(least, math.ceil((size["bytes"] or 0) / _SHARE_BYTES)) if size else least
    search = _searching(Look(dict(needles), dict(keys or {}), sieve))
    found = files.repartition(shares).mapInArrow(search, f"{FOUND_SCHEMA}, digest string")
    if stones is not None:
        is_stone = looked_up(stones.withColumn("is_stone", F.lit(True)), count)
        found = found.join(is_stone, "digest", "left").where("digest IS NULL OR is_stone")
    return found.select("needle", "file", "place").distinct()


def refuse_empty(spark: SparkSession, places: Sequence[str]) -> None:
    """Make sure that executors see a file at each of ``places``, which somebody named: nothing is proven of a typo.

    Raises:
        SettingsError: at one of them is none, or it is no place that can be searched.
    """
    for place in places:
        if not usable_address(place):
            raise SettingsError(f"--place {place!a}: is no UTF-8, has a control character in it, or is too long.")
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

    for batch in batches:
        for place in batch.column("uri").to_pylist():
            files = files_at(place)
            while some := list(islice(files, _LISTED_ROWS)):
                uris, sizes, reasons = zip(*some, strict=True)
                columns = [pa.array([place] * len(some), pa.string()), pa.array(uris, pa.string())]
                columns += [pa.array(sizes, pa.int64()), pa.array(reasons, pa.string())]
                yield pa.RecordBatch.from_arrays(columns, names=["named", "uri", "byte_size", "reason"])


def _searching(look: Look) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for uri, reason in zip(batch.column("uri").to_pylist(), batch.column("reason").to_pylist(), strict=True):
                hits = list(set(_in_file(uri, reason, look)))
                columns = list(zip(*[(n, uri, p, d) for n, p, d in hits], strict=True)) or [(), (), (), ()]
                yield pa.RecordBatch.from_arrays(
                    [pa.array(list(c), pa.string()) for c in columns], names=["needle", "file", "place", "digest"]
                )

    return run


def _in_file(uri: str, reason: str | None, look: Look) -> Iterator[Hit]:
    """What stands in a file; of one that cannot be read (``reason``: as its listing knows), that it cannot."""
    try:
        if reason is None:
            yield from _search(uri, look)
    except ReadFailure as failure:
        reason = failure.reason
    except MemoryError:
        reason = "NO_MEMORY"
    except OSError as error:
        reason = reason_of(error)
    if reason is not None:
        yield NOT_SEARCHED, reason, None


def _search(uri: str, look: Look) -> Iterator[Hit]:
    """What stands in a file, and where in it. A file that is removed meanwhile holds nothing.

    Parquet that cannot be read has not been searched, which is a finding (`UNREADABLE`), unless it is being written:
    one that has changed since it was read is read again.
    """
    before = b""
    while (data := _bytes_of(uri)) is not None:
        yield from ((name, "bytes", None) for name, needle in look.needles.items() if needle in data)
        unread = yield from (_search_arrow if _is_arrow(uri) else _search_parquet)(uri, data, look)
        if not unread:
            return
        digest = hashlib.sha256(data).digest()
        if digest == before:
            yield from ((UNREADABLE, place, None) for place in unread)
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


def _is_arrow(uri: str) -> bool:
    """Whether a file is a stream of Arrow batches: milvus-lite's log of what it has not written yet."""
    return uri.lower().endswith(".arrow")


def _search_arrow(_: str, data: bytes, look: Look) -> Generator[Hit, None, set[str]]:
    """Search the batches of an Arrow stream; what of them could not be read: "batch"."""
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            for batch in stream:
                # Else offsets that lead anywhere would be followed.
                batch.validate(full=True)
                yield from look.in_table(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError, ValueError):
        return {"batch"} if data else set()
    return set()


def _search_parquet(uri: str, data: bytes, look: Look) -> Generator[Hit, None, set[str]]:
    """Search the Parquet files in a file; what of them could not be read: columns, or "footer".

    Of a file named ``*.parquet`` the whole has to be one, if it is not empty, and of one that begins as Parquet does,
    plain or encrypted, at least its beginning; in a binlog each mark belongs to one. What lies in a piece that was read
    or is told of is searched where it can be, and is no finding of its own.
    """
    pieces = Pieces(data)
    unread: set[str] = set()
    named = uri.lower().endswith(".parquet")
    whole = not data or not (named or data.startswith(_BEGINS))
    for footer in pieces.footers():
        begin, failed = yield from _search_piece(pieces, footer, look)
        whole = whole or pieces.is_whole(footer) or not (named or begin or failed)
        if not pieces.is_told(footer):
            unread |= failed
        pieces.tell(begin, footer)
    if not whole or pieces.is_given_up or (_is_binlog(data) and pieces.has_untold()):
        unread.add("footer")
    return unread


def _search_piece(pieces: Pieces, footer: Footer, look: Look) -> Generator[Hit, None, tuple[int, set[str]]]:
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


def places_of(warehouse: Any, settings: Any, staged: Sequence[str] = ()) -> list[str]:
    """Where this program keeps data: the warehouse, staged files (``staged``: also there), and an embedded index."""
    from jobs.tables.sources import file_uri

    found = [warehouse.location] if warehouse.is_path else []
    named = [settings.staging.path] if settings.staging.path else []
    found += [place for place in dict.fromkeys((*named, *staged)) if not place.startswith(f"{warehouse.location}/")]
    if settings.embedded:
        found.append(str(settings.index_file.resolve()))
    return [file_uri(warehouse.spark, place) for place in found]
