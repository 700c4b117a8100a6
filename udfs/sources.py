"""Reading image files and WebDataset shards inside executor workers, for ingestion.

Rows come and go as Arrow batches. A file that cannot be read, or is no image, stays a row without bytes, so that
nothing is lost: what stands in place of its digest tells the reason, and the embedding stage repeats it. What cannot
even be such a row (a linked folder, the rest of a broken shard) is a row of a reason alone, which is counted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from udfs.kinds import image_kind
from udfs.reading import UNREAD_PREFIX, ReadFailure, file_system, open_stream, read_bytes, usable_address
from udfs.tar import Member, TarReader, Unpacked

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

#: ``reason``: the row is no image, and only counted.
FILE_SCHEMA = "source_key string, uri string, content binary, content_sha256 string, byte_size bigint, reason string"
#: ``reason``: why this entry is not to be read; without ``uri`` it is no image, and only counted.
LISTING_SCHEMA = "uri string, byte_size bigint, reason string"
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".ppm",
)  # fmt: skip
_PACKED = (".tar.gz", ".tgz")
SHARD_SUFFIXES = (".tar", *_PACKED)
#: Folders behind links are not entered: inside the root they stand at their own place, and they may lead in a ring.
LINKED_FOLDER: Final = "LINKED_FOLDER"
UNREADABLE_FOLDER: Final = "UNREADABLE_FOLDER"
#: A shard that is no tar, breaks off, or holds more than shards do: what follows the break is unknown.
BROKEN_SHARD: Final = "BROKEN_SHARD"
# Reasons whose address is not kept: it leads where nothing is to be read, or holds what must not be shown.
_NO_ADDRESS: Final = frozenset({"BAD_ADDRESS", "OUTSIDE_ROOTS", "UNSUPPORTED_SCHEME"})
# Rows gathered before a batch is handed to Spark, bounded by bytes: Arrow's binary vectors end at 2 GiB (SPARK-39979).
_BATCH_BYTES = 32 * 2**20
_BATCH_ROWS = 256
_LISTED_ROWS = 10_000
# A foreign file may claim any size; a table's column holds no more than this.
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True)
class ReadSpec:
    """How files are read: time-out in seconds, retries, seconds of patience with an object store, byte limit;
    ``keep_bytes`` False returns hashes only.

    ``roots``: folders and ``s3://bucket/prefix`` outside of which nothing is read.
    """

    timeout_s: float
    retries: int
    patience_s: float
    max_bytes: int
    keep_bytes: bool
    roots: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    source_key: str | None = None
    uri: str | None = None
    content: bytes | None = None
    content_sha256: str | None = None
    byte_size: int = 0
    reason: str | None = None


def read_files(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (source_key, uri, byte_size, reason) become rows of ``FILE_SCHEMA``."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from _in_batches(_read_each(batches, spec), spec.keep_bytes)

    return run


def list_folders(suffixes: tuple[str, ...]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (uri, recursive) of folders become rows of ``LISTING_SCHEMA``.

    Spark's own listing leaves out files of no bytes and holds all names in the driver; this one does neither.
    Names that begin with a dot are left out.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for folder in batch.to_pylist():
                yield from _listed(folder["uri"], folder["recursive"], suffixes)

    return run


def folders_in(uri: str) -> list[str]:
    """Addresses of the folders directly below one, for a task each. Raises OSError.

    Those that have no text as their name are left to the task that lists ``uri`` itself.
    """
    from pyarrow import fs

    system, path, prefix = file_system(uri)
    if not prefix:
        with os.scandir(path) as entries:
            found = [e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
        return sorted(place for place in found if usable_address(place))
    infos = system.get_file_info(fs.FileSelector(path, recursive=False))
    folders = (info for info in infos if info.type == fs.FileType.Directory)
    return sorted(prefix + info.path for info in folders if not info.base_name.startswith("."))


def has_file(uri: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file whose name ends so lies directly below a folder. Raises OSError."""
    from pyarrow import fs

    system, path, prefix = file_system(uri)
    if not prefix:
        with os.scandir(path) as entries:
            return any(entry.name.endswith(suffixes) for entry in entries)
    return any(info.base_name.endswith(suffixes) for info in system.get_file_info(fs.FileSelector(path)))


def _listed(uri: str, recursive: bool, suffixes: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    system, path, prefix = file_system(uri)
    found = _objects(system, path, prefix, recursive) if prefix else _walked(path, recursive)
    rows = (row for name, row in found if row.uri is None or name.lower().endswith(suffixes))
    while some := list(islice(rows, _LISTED_ROWS)):
        yield _to_batch(some, LISTING_SCHEMA)


def _objects(system: FileSystem, path: str, prefix: str, recursive: bool) -> Iterator[tuple[str, _Row]]:
    from pyarrow import fs

    for info in system.get_file_info(fs.FileSelector(path, recursive=recursive)):
        if info.type == fs.FileType.File and not info.base_name.startswith("."):
            yield info.base_name, _entry(prefix + info.path, info.size)


def _walked(path: str, recursive: bool) -> Iterator[tuple[str, _Row]]:
    """Files below a local folder by their names; links to files, too: what they lead to is looked at in reading."""
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            yield "", _Row(reason=UNREADABLE_FOLDER)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                # A folder whose name is no text cannot be given a task of its own.
                if recursive or not usable_address(entry.path):
                    folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - its answer is no for a broken link
                yield "", _Row(reason=LINKED_FOLDER)
            else:
                yield entry.name, _entry(entry.path, _size(entry))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link that leads nowhere
        return 0


def _entry(uri: str, size: int) -> _Row:
    if usable_address(uri):
        return _Row(uri=uri, byte_size=size)
    return _Row(uri=uri.encode("utf-8", "backslashreplace").decode(), byte_size=size, reason="BAD_ADDRESS")


def read_shards(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (uri, reason) of tar shards become one row of ``FILE_SCHEMA`` per image member.

    The key is WebDataset's: the member's path up to the first dot of its last component. A shard that breaks off
    yields the members before the break and then a row that has nothing but its address and the reason BROKEN_SHARD.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        shards = (shard for batch in batches for shard in batch.to_pylist())
        yield from _in_batches((row for shard in shards for row in _of_shard(shard, spec)), spec.keep_bytes)

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
    place = hashlib.sha256(f"{uri}\0{size}".encode("utf-8", "backslashreplace")).hexdigest()
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


def _of_shard(shard: Mapping[str, Any], spec: ReadSpec) -> Iterator[_Row]:
    uri = shard["uri"]
    try:
        if shard["reason"]:
            raise ReadFailure(shard["reason"])
        with open_stream(uri, timeout_s=spec.timeout_s, roots=spec.roots) as stream:
            tar = TarReader(Unpacked(stream) if uri.lower().endswith(_PACKED) else stream)
            for member in tar:
                if member.name.lower().endswith(IMAGE_SUFFIXES) and not member.folder:
                    yield _member(tar, member, uri, spec)
    except MemoryError:
        raise
    except Exception:  # what damaged bytes make readers raise is not of one kind, and one shard must not end all
        yield _Row(uri=uri, reason=BROKEN_SHARD)


def _member(tar: TarReader, member: Member, uri: str, spec: ReadSpec) -> _Row:
    place = f"{uri}#{member.name}"
    if not usable_address(place) or member.name.startswith("/") or ".." in member.name.split("/"):
        text = f"{uri.rsplit('/', 1)[-1]}/{member.name}".encode("utf-8", "backslashreplace").decode()
        return _unread(text, place, member.size, "BAD_ADDRESS")
    key = f"{uri.rsplit('/', 1)[-1]}/{webdataset_key(member.name)}"
    if not member.regular:
        return _unread(key, place, member.size, "NOT_A_FILE")
    if member.size > spec.max_bytes:
        return _unread(key, place, member.size, "TOO_LARGE_BYTES")
    return _read(key, place, tar.read(member.size)) if member.size else _unread(key, place, 0, "EMPTY")


def _in_batches(rows: Iterator[_Row], keep_bytes: bool) -> Iterator[pa.RecordBatch]:
    pending: list[_Row] = []
    size = 0
    for row in rows:
        pending.append(row if keep_bytes else replace(row, content=None))
        size += len(row.content or b"")
        if size >= _BATCH_BYTES or len(pending) >= _BATCH_ROWS:
            yield _to_batch(pending, FILE_SCHEMA)
            pending, size = [], 0
    if pending:
        yield _to_batch(pending, FILE_SCHEMA)


def _to_batch(rows: list[_Row], schema: str) -> pa.RecordBatch:
    import pyarrow as pa

    types = {"string": pa.string(), "binary": pa.binary(), "bigint": pa.int64()}
    fields = [column.split() for column in schema.split(", ")]
    arrays = [pa.array([getattr(row, name) for row in rows], types[kind]) for name, kind in fields]
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in fields])
