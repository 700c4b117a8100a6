"""Which files there are, inside executor workers: each is met once, and ends as a row or in a count by its reason.

A name says of most files that they are images. Of all others the first bytes tell (256 of them): images without a
suffix, or with another one, are rows like any other. Names are bytes here and are read as UTF-8, whatever the locale.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from udfs.kinds import HEAD_BYTES, image_kind
from udfs.names import raw, shown, skipper, suffix_of, text
from udfs.reading import ReadFailure, file_system, read_head, usable_address
from udfs.sources import OTHER_FILE, SKIPPED, Counts, ReadSpec, to_batch

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

#: Folders behind links are not entered: inside the root they stand at their own place, and they may lead in a ring.
LINKED_FOLDER: Final = "LINKED_FOLDER"
UNREADABLE_FOLDER: Final = "UNREADABLE_FOLDER"
#: Not entered either: what systems keep there may be many times what it lies beside (snapshots of all of it).
SKIPPED_FOLDER: Final = "SKIPPED_FOLDER"
#: What is listed: with ``recursive`` all that lies below, else what lies in it.
FOLDER_SCHEMA = "uri string, recursive boolean"
#: A file has a ``uri``; ``reason``: why it is not to be read. A ``folder`` is one that is still to be listed. What has
#: neither is a number of ``entries`` with one reason and one suffix that are only counted.
LISTING_SCHEMA = "uri string, byte_size bigint, reason string, suffix string, entries bigint, folder string"
_LISTED_ROWS = 10_000
_LOOK: Final = "to be looked at"
# A look at a file's start is mostly waiting.
_LOOKS_AT_ONCE = 16
# A listing is one request after another, which nobody repeats if one of them fails.
_TRIES: Final = 10


@dataclass(frozen=True)
class ListSpec:
    """``suffixes``: files that are named so are rows whatever they hold. ``look``: other files are, too, where their
    first bytes are an image's; else they are only counted. ``read``: how they are looked at, and what is skipped."""

    suffixes: tuple[str, ...]
    look: bool
    read: ReadSpec


@dataclass(frozen=True)
class _Met:
    """What lies in a folder. A file: address and size; a folder that is not entered here; or a reason."""

    path: str = ""
    byte_size: int = 0
    reason: str | None = None
    folder: bool = False


@dataclass(frozen=True)
class _Row:
    uri: str | None = None
    byte_size: int = 0
    reason: str | None = None
    suffix: str | None = None
    entries: int = 1
    folder: str | None = None


def list_folders(spec: ListSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: rows of ``FOLDER_SCHEMA`` become rows of ``LISTING_SCHEMA``.

    Spark's own listing leaves out files of no bytes and holds all names in the driver; this one does neither. A
    folder that is not ``recursive`` yields the folders in it, for others to list; those whose name is no text,
    which cannot be handed on, are listed with it.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts = Counts()
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
            for batch in batches:
                for folder in batch.to_pylist():
                    met = _met(folder["uri"], folder["recursive"], spec.read)
                    while some := list(islice(met, _LISTED_ROWS)):
                        yield to_batch(_rows(some, spec, counts, pool), LISTING_SCHEMA)
        yield to_batch(
            [_Row(reason=reason, suffix=suffix, entries=n) for (reason, suffix), n in counts.items()], LISTING_SCHEMA
        )

    return run


def check_place(uri: str, *, timeout_s: float) -> None:
    """Raise OSError or `ReadFailure` where there is no file or folder that can be listed."""
    system, path, prefix = file_system(uri, timeout_s=timeout_s, attempts=_TRIES)
    if prefix:
        from pyarrow import fs

        if system.get_file_info(path).type == fs.FileType.NotFound:
            raise FileNotFoundError
    elif os.path.isdir(raw(path)):  # noqa: PTH112 - of bytes
        with os.scandir(raw(path)):
            return
    else:
        os.stat(raw(path))  # noqa: PTH116 - of bytes


def has_file(uri: str, suffixes: tuple[str, ...], skip: tuple[str, ...]) -> bool:
    """Whether a file whose name ends so, and is not skipped, lies directly below a folder. Raises OSError."""
    from pyarrow import fs

    system, path, prefix = file_system(uri)
    skips = skipper(skip)
    if not prefix:
        with os.scandir(raw(path)) as entries:
            names = (text(entry.name) for entry in entries)
            return any(name.lower().endswith(suffixes) and not skips(name) for name in names)
    names = (info.base_name for info in system.get_file_info(fs.FileSelector(path)))
    return any(name.lower().endswith(suffixes) and not skips(name) for name in names)


def occupied(root: str, read: ReadSpec) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A `mapInArrow` function: of rows (image_id, uri), the image_id of those at whose address below ``root`` something
    stands, whatever it is: of a member of a shard (``#``), the shard. A link on the way is something, too."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
            for batch in batches:
                found = list(pool.map(lambda uri: _is_occupied(uri, root, read), batch.column("uri").to_pylist()))
                yield batch.select(["image_id"]).filter(pa.array(found, pa.bool_()))

    return run


def _is_occupied(uri: str, root: str, read: ReadSpec) -> bool:
    """Whether something stands at an address, or at what comes before a ``#`` in it. What cannot be seen does."""
    ends = [at for at, char in enumerate(uri) if char == "#"]
    places = (uri[:end] for end in (*ends, len(uri)) if end >= len(root))
    try:
        system, _, prefix = file_system(uri, timeout_s=read.timeout_s, attempts=_TRIES)
        if not prefix:
            return any(_stands(raw(place), raw(root)) for place in places)
        from pyarrow import fs

        infos = system.get_file_info([place.removeprefix(prefix) for place in places])
        return any(info.type != fs.FileType.NotFound for info in infos)
    except (OSError, ReadFailure):
        return True


def _stands(place: bytes, root: bytes) -> bool:
    at = root
    for part in filter(None, place[len(root) :].split(b"/")):
        at = os.path.join(at, part)  # noqa: PTH118 - of bytes
        try:
            mode = os.lstat(at).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(mode):
            return True
    return os.path.lexists(at)


def _rows(some: list[_Met], spec: ListSpec, counts: Counts, pool: ThreadPoolExecutor) -> list[_Row]:
    """Rows of what was met; what is only counted goes to ``counts``."""
    reasons = [_by_name(met, spec) for met in some]
    unsure = [index for index, reason in enumerate(reasons) if reason == _LOOK]
    for index, reason in zip(unsure, pool.map(lambda index: _by_bytes(some[index], spec.read), unsure), strict=True):
        reasons[index] = reason
    rows = []
    for met, reason in zip(some, reasons, strict=True):
        if met.folder:
            rows.append(_Row(folder=met.path))
        elif reason:
            counts[reason, suffix_of(met.path) if met.path else None] += 1
        else:
            usable = usable_address(met.path)
            why = None if usable else "BAD_ADDRESS"
            rows.append(_Row(met.path if usable else shown(met.path), met.byte_size, why, suffix_of(met.path)))
    return rows


def _by_name(met: _Met, spec: ListSpec) -> str | None:
    """Why a file is only counted; None where it is to be a row, `_LOOK` where its first bytes have to tell."""
    if met.folder:
        return None
    if met.reason or met.path.lower().endswith(spec.suffixes):
        return met.reason
    if not usable_address(met.path):
        return "BAD_ADDRESS"
    return _LOOK if spec.look else OTHER_FILE


def _by_bytes(met: _Met, read: ReadSpec) -> str | None:
    """Why a file is no image, or cannot be looked at."""
    try:
        head = read_head(
            met.path,
            HEAD_BYTES,
            timeout_s=read.timeout_s,
            retries=read.retries,
            patience_s=read.patience_s,
            roots=read.roots,
        )
    except ReadFailure as failure:
        return failure.reason
    return None if image_kind(head, met.byte_size) else OTHER_FILE


def _met(uri: str, recursive: bool, read: ReadSpec) -> Iterator[_Met]:
    system, path, prefix = file_system(uri, timeout_s=read.timeout_s, attempts=_TRIES)
    if prefix:
        return _objects(system, path, prefix, recursive, read.skip)
    if not os.path.isdir(raw(path)) and os.path.exists(raw(path)):  # noqa: PTH110, PTH112 - of bytes
        return iter([_Met(path, os.stat(raw(path)).st_size)])  # noqa: PTH116
    return _walked(path, recursive, read.skip)


def _objects(system: FileSystem, path: str, prefix: str, recursive: bool, skip: tuple[str, ...]) -> Iterator[_Met]:
    from pyarrow import fs

    try:
        itself = system.get_file_info(path)
        if itself.type == fs.FileType.File:
            yield _Met(prefix + path, itself.size)
            return
        infos = system.get_file_info(fs.FileSelector(path, recursive=recursive))
    except OSError:
        yield _Met(reason=UNREADABLE_FOLDER)
        return
    skips, skipped = skipper(skip), set[str]()
    for info in infos:
        above, _, name = info.path.removeprefix(path.rstrip("/") + "/").rpartition("/")
        if skips(above):
            # There are no folders to enter or not: all that is in one comes with the rest, and counts as one.
            skipped.add(_outermost(above, skips))
        elif info.type == fs.FileType.File:
            yield _Met(prefix + info.path, info.size, SKIPPED if skips(name) else None)
        elif skips(name):
            skipped.add(f"{above}/{name}".lstrip("/"))
        elif not recursive:
            yield _Met(prefix + info.path, folder=True)
    yield from (_Met(reason=SKIPPED_FOLDER) for _ in skipped)


def _outermost(path: str, skips: Callable[[str], bool]) -> str:
    """The path up to the first of its folders that is skipped."""
    parts = path.split("/")
    return "/".join(parts[: next(index for index, part in enumerate(parts) if skips(part)) + 1])


def _walked(path: str, recursive: bool, skip: tuple[str, ...]) -> Iterator[_Met]:
    """Files below a local folder by their names; links to files, too: what they lead to is looked at in reading."""
    skips, folders = skipper(skip), [raw(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            yield _Met(reason=UNREADABLE_FOLDER)
            continue
        for entry in entries:
            place, skipped = text(entry.path), skips(text(entry.name))
            if not _is_folder(entry):
                yield _Met(place, _size(entry), SKIPPED if skipped else None)
            elif skipped or entry.is_symlink():
                yield _Met(reason=SKIPPED_FOLDER if skipped else LINKED_FOLDER)
            elif recursive or not usable_address(place):
                # A folder whose name is no text cannot be given a task of its own.
                folders.append(entry.path)
            else:
                yield _Met(place, folder=True)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # what it is will be told by who reads it
        return False


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link that leads nowhere
        return 0
