"""Reading image files and WebDataset shards inside executor workers, for ingestion.

Rows come and go as Arrow batches. A file that cannot be read, or that is named as an image and is none, stays a row
without bytes, so that nothing is lost: what stands in place of its digest tells the reason, and the embedding stage
repeats it. What cannot even be such a row (other files, the rest of a broken shard) is counted by reason and suffix.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from udfs.kinds import HEAD_BYTES, image_kind
from udfs.names import shown, skipper, suffix_of
from udfs.reading import UNREAD_PREFIX, ReadFailure, open_stream, read_bytes, usable_address
from udfs.tar import Member, TarReader, Unpacked

if TYPE_CHECKING:
    import pyarrow as pa

FILE_SCHEMA = "source_key string, uri string, content binary, content_sha256 string, byte_size bigint"
#: ``reason``: the row is no image, and only counted: as so many ``entries``, all with one ``suffix``. ``place``: the
#: shard and the number of the entry there.
SHARD_SCHEMA = f"{FILE_SCHEMA}, reason string, suffix string, entries bigint, place string"
#: A file of such a name is a row, whatever its bytes are. What another file is, its first bytes tell.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic",
    ".heif", ".jp2", ".j2k", ".ppm",
)  # fmt: skip
_PACKED = (".tar.gz", ".tgz")
SHARD_SUFFIXES = (".tar", *_PACKED)
#: By its name and its first bytes it is none of the files that are looked for.
OTHER_FILE: Final = "OTHER_FILE"
#: Systems leave it in folders: its name, or that of a folder that it is in, is among those of `sources.skip`.
SKIPPED: Final = "SKIPPED"
#: A shard that is no tar, breaks off, or holds more than shards do: what follows the break is unknown.
BROKEN_SHARD: Final = "BROKEN_SHARD"
# Reasons whose address is not kept: it leads where nothing is to be read, or holds what must not be shown.
_NO_ADDRESS: Final = frozenset({"BAD_ADDRESS", "OUTSIDE_ROOTS", "UNSUPPORTED_SCHEME"})
# Rows gathered before a batch is handed to Spark, bounded by bytes: Arrow's binary vectors end at 2 GiB (SPARK-39979).
_BATCH_BYTES = 32 * 2**20
_BATCH_ROWS = 256
# A foreign file may claim any size; a table's column holds no more than this.
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True)
class ReadSpec:
    """How files are read: time-out in seconds, retries, seconds of patience with an object store, byte limit;
    ``keep_bytes`` False returns hashes only.

    ``roots``: folders and ``s3://bucket/prefix`` outside of which nothing is read. ``skip``: see `skipper`.
    """

    timeout_s: float
    retries: int
    patience_s: float
    max_bytes: int
    keep_bytes: bool
    roots: tuple[str, ...]
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    source_key: str | None = None
    uri: str | None = None
    content: bytes | None = None
    content_sha256: str | None = None
    byte_size: int = 0
    reason: str | None = None
    suffix: str | None = None
    entries: int = 1
    place: str | None = None


#: How many entries there are by reason and suffix (None: of a folder). It has few keys, however many files there are.
Counts = Counter[tuple[str, str | None]]


def read_files(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (source_key, uri, byte_size, reason) become rows of ``FILE_SCHEMA``."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from _in_batches(_read_each(batches, spec), spec.keep_bytes, FILE_SCHEMA)

    return run


def read_shards(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (uri, reason) of tar shards become one row of ``SHARD_SCHEMA`` per image member.

    The key is WebDataset's: the member's path up to the first dot of its last component. A shard that breaks off
    yields the members before the break and then a row that has nothing but its address and the reason BROKEN_SHARD.
    Members that are no images come last, as counts: rows without an address.
    """

    def rows(shards: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
        counts = Counts()
        for shard in shards:
            yield from _of_shard(shard, spec, counts)
        yield from (_Row(reason=reason, suffix=suffix, entries=n) for (reason, suffix), n in counts.items())

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        shards = (shard for batch in batches for shard in batch.to_pylist())
        yield from _in_batches(rows(shards), spec.keep_bytes, SHARD_SCHEMA)

    return run


def _read_each(batches: Iterator[pa.RecordBatch], spec: ReadSpec) -> Iterator[_Row]:
    for batch in batches:
        for entry in batch.to_pylist():
            key, uri, size = entry["source_key"], entry["uri"], int(entry["byte_size"])
            try:
                if entry["reason"]:
                    raise ReadFailure(entry["reason"])
                data = read_bytes(
                    None,
                    uri,
                    timeout_s=spec.timeout_s,
                    retries=spec.retries,
                    patience_s=spec.patience_s,
                    max_bytes=spec.max_bytes,
                    roots=spec.roots,
                )
            except ReadFailure as failure:
                yield _unread(key, uri, size, failure.reason)
                continue
            yield _read(key, uri, data)


def _read(key: str, uri: str, data: bytes) -> _Row:
    digest = hashlib.sha256(data).hexdigest()
    if image_kind(data) is None:
        return _Row(key, uri, None, unread_digest("NOT_AN_IMAGE", digest), len(data))
    return _Row(key, uri, data, digest, len(data))


def _unread(key: str, uri: str, size: int, reason: str) -> _Row:
    # Changes when the file's size does, so that a mended file is looked at again.
    place = hashlib.sha256(shown(f"{uri}\0{size}").encode()).hexdigest()
    kept = None if reason in _NO_ADDRESS else uri
    return _Row(key, kept, None, unread_digest(reason, place), min(size, _LARGEST))


def unread_digest(reason: str, digest: str) -> str:
    """What stands in place of the digest of bytes that are not kept; see `udfs.reading.unread_reason`."""
    return f"{UNREAD_PREFIX}{reason}:{digest}"


def webdataset_key(member: str) -> str:
    """The part of a member's path that names its sample."""
    folder, _, name = member.rpartition("/")
    stem = name.split(".", 1)[0]
    return f"{folder}/{stem}" if folder else stem


def _of_shard(shard: Mapping[str, Any], spec: ReadSpec, counts: Counts) -> Iterator[_Row]:
    uri, skips = shard["uri"], skipper(spec.skip)
    try:
        if shard["reason"]:
            raise ReadFailure(shard["reason"])
        with open_stream(uri, timeout_s=spec.timeout_s, roots=spec.roots) as stream:
            tar = TarReader(Unpacked(stream) if uri.lower().endswith(_PACKED) else stream)
            for number, member in enumerate(tar, start=1):
                if member.folder:
                    continue
                reason, head = (SKIPPED, b"") if skips(member.name) else _no_image(tar, member)
                if reason:
                    counts[reason, suffix_of(member.name)] += 1
                    continue
                row = _member(tar, member, head, uri, spec)
                yield replace(row, suffix=suffix_of(member.name), place=f"{uri}: entry {number}")
    except MemoryError:
        raise
    except Exception:  # what damaged bytes make readers raise is not of one kind, and one shard must not end all
        yield _Row(uri=uri, reason=BROKEN_SHARD)


def _no_image(tar: TarReader, member: Member) -> tuple[str | None, bytes]:
    """Why a member is none that could be an image, by its name and first bytes; and what was read of it for that."""
    if member.name.lower().endswith(IMAGE_SUFFIXES):
        return None, b""
    if not member.regular:
        return "NOT_A_FILE", b""
    head = tar.read(min(member.size, HEAD_BYTES))
    return (None if image_kind(head, member.size) else OTHER_FILE if head else "EMPTY"), head


def _member(tar: TarReader, member: Member, head: bytes, uri: str, spec: ReadSpec) -> _Row:
    place = f"{uri}#{member.name}"
    if not usable_address(place) or member.name.startswith("/") or ".." in member.name.split("/"):
        return _unread(shown(f"{uri.rsplit('/', 1)[-1]}/{member.name}"), place, member.size, "BAD_ADDRESS")
    key = f"{uri.rsplit('/', 1)[-1]}/{webdataset_key(member.name)}"
    if not member.regular:
        return _unread(key, place, member.size, "NOT_A_FILE")
    if member.size > spec.max_bytes:
        return _unread(key, place, member.size, "TOO_LARGE_BYTES")
    data = head + tar.read(member.size - len(head))
    return _read(key, place, data) if data else _unread(key, place, 0, "EMPTY")


def _in_batches(rows: Iterator[_Row], keep_bytes: bool, schema: str) -> Iterator[pa.RecordBatch]:
    pending: list[_Row] = []
    size = 0
    for row in rows:
        pending.append(row if keep_bytes else replace(row, content=None))
        size += len(row.content or b"")
        if size >= _BATCH_BYTES or len(pending) >= _BATCH_ROWS:
            yield to_batch(pending, schema)
            pending, size = [], 0
    if pending:
        yield to_batch(pending, schema)


def to_batch(rows: list[Any], schema: str) -> pa.RecordBatch:
    """Objects whose attributes are the columns of ``schema``, as an Arrow batch."""
    import pyarrow as pa

    types = {"string": pa.string(), "binary": pa.binary(), "bigint": pa.int64(), "boolean": pa.bool_()}
    fields = [column.split() for column in schema.split(", ")]
    arrays = [pa.array([getattr(row, name) for row in rows], types[kind]) for name, kind in fields]
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in fields])
