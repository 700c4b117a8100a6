"""How many pixels decoding a HEIC makes, by its HEVC headers, and whether its coded data can be whole.

libde265 decodes what is damaged without a word. HEVC knows no checksum that cameras write, but a rule that a file
which was filled up with zeros breaks: three of them never follow each other in a unit (H.265, 7.4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from udfs.boxes import MOST_PARTS, Bits, boxes, items, number, once, payloads
from udfs.limits import BadStructure, TooManyReads

_FILMS = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")
_SEQUENCE = 33  # a sequence parameter set; below 32 are slices
_FIRST_PARAMETER_SET = 32
_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")


def is_film(data: bytes) -> bool:
    """Whether a file calls itself a film, and holds no picture beside it. Raises `TooManyReads`."""
    if data[8:12] not in _FILMS:
        return False
    try:
        return not any(kind == b"meta" for kind, _, _ in boxes(data, 0, len(data)))
    except BadStructure:
        return True


def is_cut(data: bytes) -> bool:
    """Whether what the file tells of ends before its end."""
    at = 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] in (b"ftyp", b"meta", b"free", b"mdat"):
        size = number(data, at, 4)
        at += number(data, at + 8, 8) if size == 1 and at + 16 <= len(data) else size or len(data)
        if at > len(data):
            return True
    return False


def is_plain(data: bytes) -> bool:
    """Whether its picture is coded as one, or as a grid of tiles: no other construction is known by its size.

    Raises `BadStructure`, `TooManyReads`.
    """
    parts = _parts(data)
    start, _ = parts[b"pitm"]
    primary = number(data, start + 4, 4 if number(data, start, 1) else 2)
    return dict(items(data, *parts[b"iinf"])).get(primary) in (b"hvc1", b"grid")


def frame_pixels(data: bytes) -> int:
    """Pixels of the frames of all HEVC items, counted from above; at least those that a grid is laid out to.

    Raises `BadStructure`, `TooManyReads`; also where a unit cannot be as it was written.
    """
    parts = _parts(data)
    kinds = dict(items(data, *parts[b"iinf"]))
    _check_grids(data, parts, kinds)
    parameters = _parameters(data, parts)
    pixels = canvas = 0
    for item, payload in payloads(data, parts, kinds):
        if kinds[item] == b"hvc1":
            if item not in parameters:
                raise BadStructure
            pixels += _pixels_of(payload, *parameters[item])
        elif kinds[item] == b"grid":
            canvas = max(canvas, _canvas(payload))
    return max(pixels, canvas)


def _parts(data: bytes) -> dict[bytes, tuple[int, int]]:
    """What is in the one `meta` box. Behind it may stand what is no box: some cameras append a film."""
    found = None
    try:
        for kind, start, end in boxes(data, 0, len(data)):
            if kind == b"meta":
                if found is not None:
                    raise TooManyReads
                found = start, end
    except BadStructure:
        if found is None:
            raise
    if found is None:
        raise BadStructure
    return once(data, found[0] + 4, found[1])


def _check_grids(data: bytes, parts: dict[bytes, tuple[int, int]], kinds: dict[int, bytes]) -> None:
    """Each tile stands in one grid once: what is laid out many times would be decoded many times."""
    if b"iref" not in parts:
        return
    start, end = parts[b"iref"]
    width = 4 if number(data, start, 1) else 2
    seen: set[int] = set()
    for kind, first, _ in boxes(data, start + 4, end):
        if kind == b"dimg" and kinds.get(number(data, first, width)) == b"grid":
            count = number(data, first + width, 2)
            tiles = [number(data, first + width + 2 + width * index, width) for index in range(count)]
            if len(seen | set(tiles)) < len(seen) + count:
                raise TooManyReads
            seen.update(tiles)


def _canvas(payload: bytes) -> int:
    """Pixels of the picture that a grid's tiles are laid out to (ISO/IEC 23008-12, 6.6.2.3)."""
    size = 4 if number(payload, 1, 1) & 1 else 2
    return number(payload, 4, size) * number(payload, 4 + size, size)


def _parameters(data: bytes, parts: dict[bytes, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """For each item that has a decoder's configuration: the bytes of a unit's length, pixels of the largest frame."""
    inside = once(data, *parts[b"iprp"])
    configured: dict[int, tuple[int, int]] = {}
    for index, (kind, first, last) in enumerate(boxes(data, *inside[b"ipco"]), start=1):
        if kind == b"hvcC":
            frames = [_frame(unit) for unit in _configured(data, first, last)]
            configured[index] = (number(data, first + 21, 1) & 3) + 1, max(frames, default=0)
    found: dict[int, tuple[int, int]] = {}
    for item, index in _associations(data, *inside[b"ipma"]):
        if index in configured:
            if item in found:  # libheif takes the first, others the last
                raise BadStructure
            found[item] = configured[index]
    return found


def _associations(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Items and the places of their properties (ISO/IEC 23008-12, 9.3.1)."""
    width, wide = (4 if number(data, start, 1) else 2), number(data, start + 3, 1) & 1
    at, parts = start + 8, 0
    for _ in range(number(data, start + 4, 4)):
        item, count = number(data, at, width), number(data, at + width, 1)
        at, parts = at + width + 1, parts + 1 + count
        if parts > MOST_PARTS:
            raise TooManyReads
        for _ in range(count):
            yield item, number(data, at, 1 + wide) & (0x7FFF if wide else 0x7F)
            at += 1 + wide
        if at > end:
            raise BadStructure


def _configured(data: bytes, start: int, end: int) -> Iterator[bytes]:
    """The sequence parameter sets of a decoder configuration (ISO/IEC 14496-15, 8.3.3.1)."""
    at = start + 23
    for _ in range(number(data, start + 22, 1)):
        count, at = number(data, at + 1, 2), at + 3
        for _ in range(count):
            size = number(data, at, 2)
            unit = data[at + 2 : at + 2 + size]
            at += 2 + size
            if at > end:
                raise BadStructure
            if _kind(unit) == _SEQUENCE:
                yield unit


def _pixels_of(payload: bytes, width: int, largest: int) -> int:
    """Frames that begin in an item, times the largest that its parameters allow."""
    at = frames = 0
    for _ in range(MOST_PARTS):
        if at >= len(payload):
            break
        size = number(payload, at, width)
        unit = payload[at + width : at + width + size]
        at += width + size
        if at > len(payload) or _FORBIDDEN.search(unit):
            raise BadStructure
        kind = _kind(unit)
        if kind == _SEQUENCE:
            largest = max(largest, _frame(unit))
        elif kind < _FIRST_PARAMETER_SET:
            frames += number(unit, 2, 1) >> 7
    else:
        raise TooManyReads
    if not frames or not largest:
        raise BadStructure
    return frames * largest


def _kind(unit: bytes) -> int:
    head = number(unit, 0, 2)
    if head & 0x8000:
        raise BadStructure
    return head >> 9


def _frame(unit: bytes) -> int:
    """Pixels of the frames under a sequence parameter set (H.265, 7.3.2.2)."""
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    _exp_golomb(bits)
    if _exp_golomb(bits) == 3:
        bits.take(1)
    return _exp_golomb(bits) * _exp_golomb(bits)


def _exp_golomb(bits: Bits) -> int:
    zeros = 0
    while not bits.take(1):
        zeros += 1
    return (1 << zeros) - 1 + bits.take(zeros)
