"""How many pixels decoding a HEIC makes, by its HEVC headers, and whether its coded data can be whole.

libde265 decodes what is damaged without a word, and libheif leaves a tile that it cannot find unpainted. HEVC knows no
checksum that cameras write, but a rule that a file which was filled up with zeros breaks: three of them never follow
each other in a unit (H.265, 7.4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from udfs.boxes import FILLED_UP, MOST_PARTS, Bits, boxes, items, locations, number, once, payloads
from udfs.limits import BadStructure, TooManyReads

_FILMS = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")
_SEQUENCE = 33  # a sequence parameter set; below 32 are slices
_FIRST_PARAMETER_SET = 32
_ACCESS_POINTS = range(16, 22)  # slices of a picture that needs no other
_BESIDE_SLICES = range(_FIRST_PARAMETER_SET, 41)  # parameters, delimiters, fill and remarks
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
    return dict(items(data, *parts[b"iinf"])).get(_primary(data, parts)) in (b"hvc1", b"grid")


def shown_size(data: bytes) -> tuple[int, int]:
    """Width and height of the picture that is decoded, turned as its boxes say: asked of a file before and after.

    Every part of it has to be there: as many tiles as the grid has places, each a picture of its own that needs no
    other, with its decoder's configuration, in bytes of its own, as large as it says. libheif takes less.

    Raises `BadStructure`, `TooManyReads`.
    """
    parts = _parts(data)
    kinds = dict(items(data, *parts[b"iinf"]))
    primary = _primary(data, parts)
    size, shown = _extents(data, parts, primary)
    references = list(_references(data, parts))
    # A tone map (`tmap`) is derived from the picture, and some writers note its thumbnail the wrong way round.
    for kind, item, to in references:
        is_tile = kind == b"dimg" and kinds.get(item) == b"grid" and primary in to
        is_smaller = (
            kind == b"thmb"
            and item == primary
            and max((_area(data, parts, o) for o in to), default=0) > size[0] * size[1]
        )
        if is_tile or is_smaller or (kind == b"auxl" and item == primary):
            raise BadStructure
    if kinds.get(primary) == b"grid":
        derived = [to for kind, item, to in references if kind == b"dimg" and item == primary]
        tiles = derived[0] if len(derived) == 1 else []
        _check_grid(data, parts, primary, tiles, size)
    else:
        tiles = [primary]
    if any(kinds.get(tile) != b"hvc1" for tile in tiles):
        raise BadStructure
    _check_places(data, parts, {primary, *tiles})
    _check_coded(data, parts, tiles)
    return shown


def _area(data: bytes, parts: dict[bytes, tuple[int, int]], item: int) -> int:
    width, height = _extents(data, parts, item)[0]
    return width * height


def _primary(data: bytes, parts: dict[bytes, tuple[int, int]]) -> int:
    start, _ = parts[b"pitm"]
    return number(data, start + 4, 4 if number(data, start, 1) else 2)


def _check_grid(
    data: bytes, parts: dict[bytes, tuple[int, int]], grid: int, tiles: list[int], size: tuple[int, int]
) -> None:
    """Rows and columns are as many as the tiles, which cover the picture, and each of which shows in it."""
    found = [payload for _, payload in payloads(data, parts, {grid})]
    if len(found) != 1 or not tiles:
        raise BadStructure
    (layout,) = found
    rows, columns, wide = number(layout, 2, 1) + 1, number(layout, 3, 1) + 1, 4 if number(layout, 1, 1) & 1 else 2
    canvas = number(layout, 4, wide), number(layout, 4 + wide, wide)
    of_tiles = {_extents(data, parts, tile) for tile in tiles}
    if number(layout, 0, 1) or rows * columns != len(tiles) or canvas != size or len(of_tiles) != 1:
        raise BadStructure
    (((width, height), shown),) = of_tiles
    if shown != (width, height):  # turned or cut for itself, which libheif may or may not do
        raise BadStructure
    for across, many, whole in ((width, columns, size[0]), (height, rows, size[1])):
        if not (many - 1) * across < whole <= many * across:
            raise BadStructure


def _check_places(data: bytes, parts: dict[bytes, tuple[int, int]], wanted: set[int]) -> None:
    """Each item has one place, and bytes that are no other's: a tile twice stands for one that is missing."""
    found: list[int] = []
    taken: list[tuple[int, int, int]] = []
    for item, method, extents in locations(data, *parts[b"iloc"]):
        if item in wanted:
            found.append(item)
            taken += [(method, at, at + size) for at, size in extents]
    overlapping = any(one[0] == other[0] and one[2] > other[1] for one, other in pairwise(sorted(taken)))
    if sorted(found) != sorted(wanted) or overlapping:
        raise BadStructure


def _check_coded(data: bytes, parts: dict[bytes, tuple[int, int]], tiles: list[int]) -> None:
    """Of each tile one whole frame, as large as the tile says, and nothing that a decoder passes over."""
    configured = _parameters(data, parts)
    frames = dict(_configured_sizes(data, parts))
    for tile, payload in payloads(data, parts, set(tiles)):
        if tile not in configured:
            raise BadStructure
        begun, sizes = 0, set(frames[tile])
        for unit in _units(payload, configured[tile][0]):
            kind = _kind(unit)
            if kind in _ACCESS_POINTS:
                # Another layer, or another time, is decoded by no decoder of pictures.
                if number(unit, 0, 2) & 0x1FF != 1:
                    raise BadStructure
                begun += number(unit, 2, 1) >> 7
            elif kind not in _BESIDE_SLICES:
                raise BadStructure
            elif kind == _SEQUENCE:
                sizes.add(_cropped(unit))
        if begun != 1 or sizes != {_extents(data, parts, tile)[0]}:
            raise BadStructure


def _extents(data: bytes, parts: dict[bytes, tuple[int, int]], item: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of an item as it is coded, and as its boxes cut and turn it. Raises `BadStructure`."""
    inside = once(data, *parts[b"iprp"])
    properties = list(boxes(data, *inside[b"ipco"]))
    coded: list[tuple[int, int]] = []
    turns: list[tuple[bytes, int]] = []
    for owner, index in _associations(data, *inside[b"ipma"]):
        if owner != item or not 0 < index <= len(properties):
            continue
        kind, start, _ = properties[index - 1]
        if kind == b"ispe":
            coded.append((number(data, start + 4, 4), number(data, start + 8, 4)))
        elif kind in (b"clap", b"irot"):
            turns.append((kind, start))
    if len(coded) != 1 or not all(coded[0]):
        raise BadStructure
    width, height = coded[0]
    for kind, start in turns:
        if kind == b"irot" and number(data, start, 1) & 1:
            width, height = height, width
        elif kind == b"clap":
            below = number(data, start + 4, 4), number(data, start + 12, 4)
            if not all(below):
                raise BadStructure
            width, height = number(data, start, 4) // below[0], number(data, start + 8, 4) // below[1]
    return coded[0], (width, height)


def _references(data: bytes, parts: dict[bytes, tuple[int, int]]) -> Iterator[tuple[bytes, int, list[int]]]:
    """Kind, the item that refers, and those that it refers to."""
    if b"iref" not in parts:
        return
    start, end = parts[b"iref"]
    width = 4 if number(data, start, 1) else 2
    for kind, first, _ in boxes(data, start + 4, end):
        count = number(data, first + width, 2)
        place = first + width + 2
        yield kind, number(data, first, width), [number(data, place + width * index, width) for index in range(count)]


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
    seen: set[int] = set()
    for kind, item, tiles in _references(data, parts):
        if kind == b"dimg" and kinds.get(item) == b"grid":
            if len(seen | set(tiles)) < len(seen) + len(tiles):
                raise TooManyReads
            seen.update(tiles)


def _canvas(payload: bytes) -> int:
    """Pixels of the picture that a grid's tiles are laid out to (ISO/IEC 23008-12, 6.6.2.3)."""
    size = 4 if number(payload, 1, 1) & 1 else 2
    return number(payload, 4, size) * number(payload, 4 + size, size)


def _parameters(data: bytes, parts: dict[bytes, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """For each item that has a decoder's configuration: the bytes of a unit's length, pixels of the largest frame."""
    found: dict[int, tuple[int, int]] = {}
    for item, (first, last) in _configurations(data, parts):
        if item in found:  # libheif takes the first, others the last
            raise BadStructure
        frames = [_frame(unit) for unit in _configured(data, first, last)]
        found[item] = (number(data, first + 21, 1) & 3) + 1, max(frames, default=0)
    return found


def _configured_sizes(data: bytes, parts: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """For each item that has a decoder's configuration: the sizes that are shown of frames."""
    for item, (first, last) in _configurations(data, parts):
        yield item, [_cropped(unit) for unit in _configured(data, first, last)]


def _configurations(data: bytes, parts: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Items, and where their decoder's configuration stands."""
    inside = once(data, *parts[b"iprp"])
    places = {
        index: (first, last)
        for index, (kind, first, last) in enumerate(boxes(data, *inside[b"ipco"]), start=1)
        if kind == b"hvcC"
    }
    for item, index in _associations(data, *inside[b"ipma"]):
        if index in places:
            yield item, places[index]


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
    frames = 0
    for unit in _units(payload, width):
        kind = _kind(unit)
        # A camera may fill an item up, by a unit of its own.
        if _FORBIDDEN.search(unit) or (kind < _FIRST_PARAMETER_SET and FILLED_UP.search(unit)):
            raise BadStructure
        if kind == _SEQUENCE:
            largest = max(largest, _frame(unit))
        elif kind < _FIRST_PARAMETER_SET:
            frames += number(unit, 2, 1) >> 7
    if not frames or not largest:
        raise BadStructure
    return frames * largest


def _units(payload: bytes, width: int) -> Iterator[bytes]:
    """The units of an item, each behind its length. Raises `BadStructure`, `TooManyReads`."""
    at = 0
    for _ in range(MOST_PARTS):
        if at >= len(payload):
            return
        size = number(payload, at, width)
        unit = payload[at + width : at + width + size]
        at += width + size
        if at > len(payload):
            raise BadStructure
        yield unit
    raise TooManyReads


def _kind(unit: bytes) -> int:
    head = number(unit, 0, 2)
    if head & 0x8000:
        raise BadStructure
    return head >> 9


def _frame(unit: bytes) -> int:
    """Pixels of the frames under a sequence parameter set."""
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    _to_the_size(bits)
    return _exp_golomb(bits) * _exp_golomb(bits)


def _cropped(unit: bytes) -> tuple[int, int]:
    """Width and height that are shown of the frames under a sequence parameter set."""
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    chroma = _to_the_size(bits)
    width, height = _exp_golomb(bits), _exp_golomb(bits)
    if bits.take(1):
        left, right, top, bottom = (_exp_golomb(bits) for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1)
    return width, height


def _to_the_size(bits: Bits) -> int:
    """Read a sequence parameter set up to its width (H.265, 7.3.2.2): the kind of its chroma."""
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    _exp_golomb(bits)
    chroma = _exp_golomb(bits)
    if chroma == 3:
        bits.take(1)
    return chroma


def _exp_golomb(bits: Bits) -> int:
    zeros = 0
    while not bits.take(1):
        zeros += 1
    return (1 << zeros) - 1 + bits.take(zeros)
