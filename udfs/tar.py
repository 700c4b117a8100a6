"""Members of a tar that nobody vouches for, one after another, in bounded memory and time.

The standard library takes an archive at its word: it calls itself for each header that describes another, keeps every
member and gives each a copy of all global names, searches headers by patterns that take time by the square of their
length, and unpacks whatever it finds. Of it only the reading of one header of 512 bytes is used here.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol, cast

# A name, its times, some attributes: what describes a member is read whole, so it has a longest.
_LONGEST_HEADER: Final = 2**20
# A long name, a long link and a pax header are the most that writers put before one member.
_MOST_HEADERS: Final = 16
# What holds for all members is a comment (git archive) or a few names.
_LONGEST_GLOBAL: Final = 4096
#: Entries of one archive, images or not.
MOST_ENTRIES: Final = 10_000_000
#: A gzip may unpack to so many bytes, and to so many for each of its own: a bomb gives a thousand.
UNPACKED_BYTES, UNPACKED_RATIO = 2**28, 100
_SKIPPED: Final = 2**20
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


class Readable(Protocol):
    """Whatever bytes come from, in order; fewer than asked for at its end only, or none."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Member:
    """An entry. ``size``: what it claims; ``regular``: it is a file whose bytes stand here as they are."""

    name: str
    size: int
    regular: bool
    folder: bool


class TarReader:
    """The members of a tar, in order, by iteration; `read` gives the bytes of the one that it stands at.

    Iteration ends where the archive says that it ends, and nothing but zeros may stand behind: another archive there
    would be lost. Raises `tarfile.TarError`, EOFError and ValueError where it is damaged, breaks off, or holds more
    than an archive of pictures does.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left = self._entries = self._global = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member
            self._skip()

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes of this member."""
        data = self._exactly(size)
        self._left -= size
        return data

    def _next(self) -> Member | None:
        described: dict[str, bytes] = {}
        for _ in range(_MOST_HEADERS):
            block = self._exactly(tarfile.BLOCKSIZE)
            if not any(block):
                self._end()
                return None
            self._entries += 1
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if header.size < 0 or self._entries > MOST_ENTRIES:
                raise tarfile.ReadError("a size below zero, or too many entries")
            if header.type not in (*_PAX, *_LONG):
                return self._member(header, block, described)
            # The first header before a member has the last word.
            described = {**self._description(header), **described}
        raise tarfile.ReadError("too many headers before a member")

    def _description(self, header: tarfile.TarInfo) -> dict[str, bytes]:
        if header.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header of that size")
        body = self._exactly(_padded(header.size))[: header.size]
        if header.type in _LONG:
            return {_LONG[header.type]: body.split(b"\0", 1)[0]}
        records = _pax_records(body)
        if header.type != tarfile.XGLTYPE:
            return records
        self._global += header.size
        if self._global > _LONGEST_GLOBAL or any(_matters(key) for key in records):
            raise tarfile.ReadError("a global header that describes members")
        return {}

    def _member(self, header: tarfile.TarInfo, block: bytes, described: dict[str, bytes]) -> Member:
        size, name = header.size, header.name
        if "size" in described:
            size = _number(described["size"])
        if "path" in described:
            name = described["path"].decode("utf-8", "surrogateescape")
        sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in described)
        if header.type == tarfile.GNUTYPE_SPARSE:
            more = block[482]
            while more:
                more = self._exactly(tarfile.BLOCKSIZE)[504]
        # Links, devices and folders have no bytes here, whatever size they claim.
        has_bytes = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        self._left = _padded(size) if has_bytes else 0
        return Member(name, size, header.isreg() and not sparse, header.isdir())

    def _skip(self) -> None:
        while self._left:
            self.read(min(self._left, _SKIPPED))

    def _end(self) -> None:
        # To the last byte, where a gzip has its checksum.
        while data := self._stream.read(_SKIPPED):
            if data.count(0) < len(data):
                raise tarfile.ReadError("something stands behind the end")

    def _exactly(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            data = self._stream.read(missing)
            if not data:
                raise EOFError
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Unpacked:
    """The bytes of a gzip, as long as they are in proportion to its own; else `tarfile.ReadError`."""

    def __init__(self, stream: Readable) -> None:
        self._packed = _Counted(stream)
        self._plain = gzip.GzipFile(fileobj=cast("IO[bytes]", self._packed))
        self._given = 0

    def read(self, size: int, /) -> bytes:
        data = self._plain.read(size)
        self._given += len(data)
        if self._given > UNPACKED_BYTES + UNPACKED_RATIO * self._packed.count:
            raise tarfile.ReadError("it unpacks to too much")
        return data


class _Counted:
    def __init__(self, stream: Readable) -> None:
        self._stream, self.count = stream, 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data


def _pax_records(body: bytes) -> dict[str, bytes]:
    """Records of ``length key=value``, each of which ends where its length says."""
    records, at = {}, 0
    while at < len(body) and body[at]:
        length = _number(body[at : at + 20].split(b" ", 1)[0])
        record = body[at : at + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if not equals or len(record) < length or not value.endswith(b"\n"):
            raise tarfile.ReadError("a record that is none")
        records[key.decode("utf-8", "replace")] = value[:-1]
        at += length
    return records


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise tarfile.ReadError("no number")
    return int(digits)


def _matters(key: str) -> bool:
    return key in ("path", "linkpath", "size") or key.startswith("GNU.sparse.")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
