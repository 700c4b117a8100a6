"""Every file of a place that is searched: hidden ones too, and those behind links. What cannot be searched is told.

Names are bytes here, as where sources are listed (`udfs/listing.py`): one that is no text, or that no address may hold,
is a file like any other, and ends no listing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from udfs.listing import UNREADABLE_FOLDER
from udfs.names import raw, text
from udfs.reading import file_system, reason_of, usable_address

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


class PlaceFile(NamedTuple):
    """A file, by its address as it can be stored; ``reason``: why it, or the folder that it is, cannot be searched."""

    uri: str
    byte_size: int
    reason: str | None


def files_at(uri: str) -> Iterator[PlaceFile]:
    """The files of a folder or prefix, or the one of that name; none where nothing is there."""
    system, path, prefix = file_system(uri)
    return _objects(system, path, prefix) if prefix else _walked(raw(path))


def _file(address: str, size: int) -> PlaceFile:
    return PlaceFile(address, size, None) if usable_address(address) else _unread(address, "BAD_ADDRESS")


def _unread(address: str, reason: str) -> PlaceFile:
    """Its address is there to be shown to somebody, and written out where it is no text, or breaks a line."""
    return PlaceFile("".join(c if c.isprintable() else ascii(c)[1:-1] for c in address), 0, reason)


def _objects(system: FileSystem, path: str, prefix: str) -> Iterator[PlaceFile]:
    from pyarrow import fs

    try:
        found = [system.get_file_info(path)]
        if found[0].type != fs.FileType.File:
            found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError:
        yield _unread(prefix + path, UNREADABLE_FOLDER)
        return
    yield from (_file(prefix + info.path, info.size) for info in found if info.type == fs.FileType.File)


def _walked(root: bytes) -> Iterator[PlaceFile]:
    """What is no regular file, or a link to nothing, holds nothing that was stored: it is passed over."""
    # A link may lead in a ring: what lies below a folder that was entered stands there at its own place.
    entered = [os.path.realpath(root)]
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)  # noqa: PTH116 - of bytes
            if stat.S_ISREG(status.st_mode):
                yield _file(text(path), status.st_size)
            elif stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as found:
                    waiting += [entry.path for entry in found if not _is_met(entry, entered)]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                yield _unread(text(path), reason_of(error))


def _is_met(entry: os.DirEntry[bytes], entered: list[bytes]) -> bool:
    """Whether it is a link to a folder that is, or was, walked anyhow. If not, it is noted."""
    if not entry.is_symlink() or not os.path.isdir(entry.path):  # noqa: PTH112 - of bytes
        return False
    real = os.path.realpath(entry.path)
    met = any(real == folder or real.startswith(folder.rstrip(b"/") + b"/") for folder in entered)
    if not met:
        entered.append(real)
    return met
