"""How many pixels decoding an AVIF makes, by its AV1 headers: the size that the container shows binds no decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from udfs.limits import BadStructure, TooManyReads

# Boxes, items, extents and frames of one file; a photograph has a dozen, the largest grids some hundred.
_MOST_PARTS: Final = 10_000
_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_SIZES: Final = (4, 8)


def is_sequence(data: bytes) -> bool:
    """Whether a film is decoded, not a picture: libavif's own choice. Raises `BadStructure`, `TooManyReads`."""
    brand = data[8:12]
    return brand == b"avis" or (brand != b"avif" and any(kind == b"moov" for kind, _, _ in _boxes(data, 0, len(data))))


def frame_pixels(data: bytes) -> int:
    """Pixels of the frames of all AV1 items, counted from above. Raises `BadStructure`, `TooManyReads`."""
    top = _once(data, 0, len(data))
    start, end = top[b"meta"]
    parts = _once(data, start + 4, end)
    coded = set(_coded_items(data, *parts[b"iinf"]))
    held = parts.get(b"idat", (0, 0))
    pixels = read = 0
    for item, method, extents in _locations(data, *parts[b"iloc"]):
        if item in coded:
            payload = b"".join(_extent(data, held, method, at, size) for at, size in extents)
            read += len(payload)
            # Each item has bytes of its own: what is shared by many would be read once for each.
            if read > len(data):
                raise TooManyReads
            pixels += _pixels_of(payload)
    return pixels


def _once(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Boxes by kind; of those that are looked into, one each."""
    found: dict[bytes, tuple[int, int]] = {}
    for kind, first, last in _boxes(data, start, end):
        if kind in found and kind in (b"meta", b"iinf", b"iloc", b"idat"):
            raise BadStructure
        found[kind] = (first, last)
    return _Boxes(found)


class _Boxes(dict[bytes, tuple[int, int]]):
    def __missing__(self, kind: bytes) -> tuple[int, int]:
        raise BadStructure


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(_MOST_PARTS):
        if at >= end:
            return
        size, header = _number(data, at, 4), 8
        if size == 1:
            size, header = _number(data, at + 8, 8), 16
        last = at + size if size else end
        if last > end or last < at + header:
            raise BadStructure
        yield bytes(data[at + 4 : at + 8]), at + header, last
        at = last
    raise TooManyReads


def _coded_items(data: bytes, start: int, end: int) -> Iterator[int]:
    width = 4 if _number(data, start, 1) else 2
    for kind, first, _ in _boxes(data, start + 4 + width, end):
        version = _number(data, first, 1)
        if kind != b"infe" or version not in (2, 3):
            raise BadStructure
        number = 4 if version == 3 else 2
        if data[first + 6 + number : first + 10 + number] == b"av01":
            yield _number(data, first + 4, number)


def _locations(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Item, construction method, and the place and length of each of its extents."""
    version, sizes, bases = _number(data, start, 1), _number(data, start + 4, 1), _number(data, start + 5, 1)
    offset, length, base, index = sizes >> 4, sizes & 15, bases >> 4, (bases & 15 if version else 0)
    if (
        version > 2
        or offset not in _SIZES
        or length not in _SIZES
        or base not in (0, *_SIZES)
        or index not in (0, *_SIZES)
    ):
        raise BadStructure
    number = 4 if version == 2 else 2
    count, at, parts = _number(data, start + 6, number), start + 6 + number, 0
    for _ in range(count):
        item, at = _number(data, at, number), at + number
        method = _number(data, at, 2) & 15 if version else 0
        at += 4 if version else 2
        first, many = _number(data, at, base), _number(data, at + base, 2)
        at += base + 2
        parts += 1 + many
        if parts > _MOST_PARTS:
            raise TooManyReads
        step = index + offset + length
        if at + many * step > end:
            raise BadStructure
        places = range(at + index, at + index + many * step, step)
        yield item, method, [(first + _number(data, p, offset), _number(data, p + offset, length)) for p in places]
        at += many * step


def _extent(data: bytes, held: tuple[int, int], method: int, at: int, size: int) -> bytes:
    start, end = (0, len(data)) if method == 0 else held
    if method > 1 or not size or start + at + size > end:
        raise BadStructure
    return data[start + at : start + at + size]


def _pixels_of(payload: bytes) -> int:
    """Frames times the largest that their sequence allows."""
    at = frame = pixels = 0
    for _ in range(_MOST_PARTS):
        if at >= len(payload):
            return pixels
        head = payload[at]
        at += 2 if head & 4 else 1
        size, at = _leb128(payload, at) if head & 2 else (len(payload) - at, at)
        if head & 0x80 or at + size > len(payload):
            raise BadStructure
        kind = head >> 3 & 15
        if kind == _SEQUENCE:
            frame = _largest_frame(payload[at : at + size])
        elif kind in (_FRAME, _FRAME_HEADER):
            if not frame:
                raise BadStructure
            pixels += frame
        at += size
    raise TooManyReads


def _largest_frame(header: bytes) -> int:
    """Pixels of the largest frame under a sequence header (AV1, 5.5.1)."""
    bits = _Bits(header)
    bits.take(4)  # profile, still picture
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        if bits.take(1):  # a clock, which no picture has
            raise BadStructure
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delays and bits.take(1):
                bits.take(4)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(across) + 1, bits.take(down) + 1
    # A frame may state a size of its own, in as many bits, but for headers of the short form.
    return width * height if reduced else 1 << across + down


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:64], "big"), 8 * len(data[:64])

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise BadStructure
        return self._value >> self._left & (1 << count) - 1


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = _number(data, at + index, 1)
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise BadStructure


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise BadStructure
    return int.from_bytes(data[at : at + size], "big")
