"""Reading image files and WebDataset shards inside executor workers, for ingestion.

Rows come and go as Arrow batches; a file that cannot be read stays a row without bytes, so that nothing is lost:
the embedding stage will call it `unreadable`, with the reason.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from udfs.reading import ReadFailure, file_system, open_stream, read_bytes

if TYPE_CHECKING:
    import pyarrow as pa

FILE_SCHEMA = "source_key string, uri string, content binary, content_sha256 string, byte_size bigint"
LISTING_SCHEMA = "uri string, byte_size bigint"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".ppm")
# Before the stand-in for a digest of bytes that could not be read: no hash of content, and not compared with one.
UNREAD_PREFIX = "unread:"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Rows gathered before a batch is handed to Spark, bounded by bytes: Arrow's binary vectors end at 2 GiB (SPARK-39979).
_BATCH_BYTES = 32 * 2**20
_BATCH_ROWS = 256


@dataclass(frozen=True)
class ReadSpec:
    """How files are read: time-out in seconds, retries, byte limit; ``keep_bytes`` False returns hashes only."""

    timeout_s: float
    retries: int
    max_bytes: int
    keep_bytes: bool


@dataclass(frozen=True)
class _Row:
    source_key: str
    uri: str
    content: bytes | None
    content_sha256: str
    byte_size: int


def read_files(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (source_key, uri, byte_size) become rows of ``FILE_SCHEMA``."""

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


def _listed(uri: str, recursive: bool, suffixes: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import fs

    system, path, prefix = file_system(uri)
    found = [
        (prefix + info.path, info.size)
        for info in system.get_file_info(fs.FileSelector(path, recursive=recursive))
        if info.type == fs.FileType.File
        and info.base_name.lower().endswith(suffixes)
        and not info.base_name.startswith(".")
    ]
    for start in range(0, len(found), 10_000):
        some = found[start : start + 10_000]
        columns = [pa.array([u for u, _ in some], pa.string()), pa.array([s for _, s in some], pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, names=["uri", "byte_size"])


def read_shards(spec: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of (uri) of tar shards become one row of ``FILE_SCHEMA`` per image member.

    The key is WebDataset's: the member's path up to the first dot of its last component. A shard that breaks off
    yields the members before the break and then raises ValueError with the shard's name: its rest is unknown.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for uri in batch.column("uri").to_pylist() for row in _members(uri, spec))
        yield from _in_batches(rows, spec.keep_bytes)

    return run


def _read_each(batches: Iterator[pa.RecordBatch], spec: ReadSpec) -> Iterator[_Row]:
    for batch in batches:
        for entry in batch.to_pylist():
            key, uri, size = entry["source_key"], entry["uri"], int(entry["byte_size"])
            try:
                data = read_bytes(None, uri, timeout_s=spec.timeout_s, retries=spec.retries, max_bytes=spec.max_bytes)
            except ReadFailure:
                yield _Row(key, uri, None, _unread_digest(uri, size), size)
                continue
            yield _Row(key, uri, data, hashlib.sha256(data).hexdigest(), len(data))


def _unread_digest(uri: str, size: int) -> str:
    # Stands for bytes nobody has read; changes when the file's size does, so that a mended file is looked at again.
    return UNREAD_PREFIX + hashlib.sha256(f"{uri}\0{size}".encode()).hexdigest()


def webdataset_key(member: str) -> str:
    """The part of a member's path that names its sample."""
    folder, _, name = member.rpartition("/")
    stem = name.split(".", 1)[0]
    return f"{folder}/{stem}" if folder else stem


# What tarfile raises beside its own errors where a header is damaged.
_NO_TAR: Final = (tarfile.TarError, EOFError, ValueError, TypeError, LookupError, ArithmeticError)


class _Ending:
    """A stream that stops whoever reads on behind its end.

    tarfile skips a member in blocks whether there are any or not: a header that claims 2^63 bytes holds it for years.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._empty = stream, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._empty = 0 if data else self._empty + 1
        if self._empty > 16:
            raise EOFError
        return data


def _members(uri: str, spec: ReadSpec) -> Iterator[_Row]:
    shard = uri.rsplit("/", 1)[-1]
    try:
        with (
            open_stream(uri, timeout_s=spec.timeout_s) as stream,
            tarfile.open(fileobj=cast("IO[bytes]", _Ending(stream)), mode="r|*") as tar,
        ):
            for member in tar:
                if not member.isfile() or not member.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                handle = tar.extractfile(member)
                data = handle.read() if handle is not None and member.size <= spec.max_bytes else None
                # Names are bytes there: what is no text is written out.
                name = member.name.encode("utf-8", "backslashreplace").decode("utf-8")
                place = f"{uri}#{name}"
                digest = hashlib.sha256(data).hexdigest() if data is not None else _unread_digest(place, member.size)
                yield _Row(f"{shard}/{webdataset_key(name)}", place, data, digest, member.size)
    except _NO_TAR as error:
        raise ValueError(
            f"shard {shard} is no readable tar ({type(error).__name__}); replace it and ingest again"
        ) from None


def _in_batches(rows: Iterator[_Row], keep_bytes: bool) -> Iterator[pa.RecordBatch]:
    pending: list[_Row] = []
    size = 0
    for row in rows:
        pending.append(row)
        size += len(row.content or b"")
        if size >= _BATCH_BYTES or len(pending) >= _BATCH_ROWS:
            yield _to_batch(pending, keep_bytes)
            pending, size = [], 0
    if pending:
        yield _to_batch(pending, keep_bytes)


def _to_batch(rows: list[_Row], keep_bytes: bool) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(
        [
            pa.array([r.source_key for r in rows], pa.string()),
            pa.array([r.uri for r in rows], pa.string()),
            pa.array([r.content if keep_bytes else None for r in rows], pa.binary()),
            pa.array([r.content_sha256 for r in rows], pa.string()),
            pa.array([r.byte_size for r in rows], pa.int64()),
        ],
        names=["source_key", "uri", "content", "content_sha256", "byte_size"],
    )
