"""Boxes of ISO base media files (ISO/IEC 14496-12) and items of HEIF (ISO/IEC 23008-12), in which AVIF and HEIC are."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import Final

from udfs.limits import BadStructure, TooManyReads

#: Boxes, items, extents and frames of one file; a photograph has a dozen, the largest grids some hundred.
MOST_PARTS: Final = 10_000
#: What no coder of pictures writes, whatever they show, and what stands in a file after a crash, or for a lost block:
#: of black, white and flat pictures the longest run in AV1 and HEVC was 7 (measured with libaom and x265).
FILLED_UP: Final = re.compile(rb"\0{32}|\xff{32}")
_SIZES: Final = (4, 8)
_LOOKED_INTO: Final = (b"meta", b"iinf", b"iloc", b"idat", b"iprp", b"ipco", b"iref", b"pitm", b"ipma")


def once(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Boxes by kind; of those that are looked into, one each."""
    found: dict[bytes, tuple[int, int]] = {}
    for kind, first, last in boxes(data, start, end):
        if kind in found and kind in _LOOKED_INTO:
            raise BadStructure
        found[kind] = (first, last)
    return _Boxes(found)


class _Boxes(dict[bytes, tuple[int, int]]):
    def __missing__(self, kind: bytes) -> tuple[int, int]:
        raise BadStructure


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of what is in each box between two places. Raises `BadStructure`, `TooManyReads`."""
    for _ in range(MOST_PARTS):
        if at >= end:
            return
        size, header = number(data, at, 4), 8
        if size == 1:
            size, header = number(data, at + 8, 8), 16
        last = at + size if size else end
        if last > end or last < at + header:
            raise BadStructure
        yield bytes(data[at + 4 : at + 8]), at + header, last
        at = last
    raise TooManyReads


def items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The items of an `iinf` box: id and type. Raises `BadStructure`, `TooManyReads`."""
    width = 4 if number(data, start, 1) else 2
    for kind, first, _ in boxes(data, start + 4 + width, end):
        version = number(data, first, 1)
        if kind != b"infe" or version not in (2, 3):
            raise BadStructure
        size = 4 if version == 3 else 2
        yield number(data, first + 4, size), bytes(data[first + 6 + size : first + 10 + size])


def payloads(data: bytes, parts: dict[bytes, tuple[int, int]], wanted: Container[int]) -> Iterator[tuple[int, bytes]]:
    """The bytes of items of a `meta` box. Raises `BadStructure`, `TooManyReads`."""
    held, read = parts.get(b"idat", (0, 0)), 0
    for item, method, extents in locations(data, *parts[b"iloc"]):
        if item in wanted:
            payload = b"".join(extent(data, held, method, at, size) for at, size in extents)
            read += len(payload)
            # Each item has bytes of its own: what is shared by many would be read once for each.
            if read > len(data):
                raise TooManyReads
            yield item, payload


def locations(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Item, construction method, and the place and length of each of its extents."""
    version, sizes, bases = number(data, start, 1), number(data, start + 4, 1), number(data, start + 5, 1)
    offset, length, base, index = sizes >> 4, sizes & 15, bases >> 4, (bases & 15 if version else 0)
    if (
        version > 2
        or offset not in _SIZES
        or length not in _SIZES
        or base not in (0, *_SIZES)
        or index not in (0, *_SIZES)
    ):
        raise BadStructure
    width = 4 if version == 2 else 2
    count, at, parts = number(data, start + 6, width), start + 6 + width, 0
    for _ in range(count):
        item, at = number(data, at, width), at + width
        method = number(data, at, 2) & 15 if version else 0
        at += 4 if version else 2
        first, many = number(data, at, base), number(data, at + base, 2)
        at += base + 2
        parts += 1 + many
        if parts > MOST_PARTS:
            raise TooManyReads
        step = index + offset + length
        if at + many * step > end:
            raise BadStructure
        places = range(at + index, at + index + many * step, step)
        yield item, method, [(first + number(data, p, offset), number(data, p + offset, length)) for p in places]
        at += many * step


def extent(data: bytes, held: tuple[int, int], method: int, at: int, size: int) -> bytes:
    """One of an item's pieces, in the file or in ``held``, the `idat` box. Raises `BadStructure`."""
    start, end = (0, len(data)) if method == 0 else held
    if method > 1 or not size or start + at + size > end:
        raise BadStructure
    return data[start + at : start + at + size]


class Bits:
    """The bits of a header, first to last; of its first 64 bytes."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:64], "big"), 8 * len(data[:64])

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number. Raises `BadStructure`."""
        self._left -= count
        if self._left < 0:
            raise BadStructure
        return self._value >> self._left & (1 << count) - 1


def number(data: bytes, at: int, size: int) -> int:
    """A number of ``size`` bytes, the highest first. Raises `BadStructure`."""
    if at + size > len(data):
        raise BadStructure
    return int.from_bytes(data[at : at + size], "big")
