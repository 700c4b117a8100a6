"""What a TIFF holds, by its directories: which picture, coded how, and whether every part of it is there.

Pillow and libtiff paint nothing where a strip is missing, and take some orders of bits and bytes for others. So what is
decoded is a closed list, each entry held against known pixels (tests/unit/udfs/test_tiffs.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from udfs import jpegs
from udfs.boxes import FILLED_UP
from udfs.limits import MAX_STRIPS, BadStructure, TooManyReads, jpeg_frame, jpeg_scans
from udfs.pngs import holds

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_SUBDIRECTORIES, _EXTRA, _FORMAT, _JPEG_TABLES = 330, 338, 339, 347
_OFFSETS = frozenset({_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS})
_NEW_SUBFILE, _OLD_SUBFILE = 254, 255  # of a copy in fewer pixels: the lowest bit is set; the number is 2
_LAST_BASELINE_TAG = 600
_WHOLE_NUMBERS = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # BYTE, SHORT, LONG, IFD, LONG8, IFD8: bytes of one
_OF_TILES = {3: 2, 4: 4, 16: 8}
_UNDEFINED = 7

_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACK_BITS = 1, 5, 7, 8, 32946, 32773
_COMPRESSIONS = frozenset({_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACK_BITS})
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_TOGETHER, _APART = 1, 2  # samples of a pixel

#: Photometric interpretation, bits of the samples, extra samples: what Pillow reads as it was meant. All are of
#: unsigned numbers, the highest bit of a byte first.
_MODES: Final = frozenset(
    {
        *((_WHITE_IS_ZERO, (bits,), ()) for bits in (1, 2, 4, 8)),
        *((_BLACK_IS_ZERO, (bits,), ()) for bits in (1, 2, 4, 8, 16)),
        *((_BLACK_IS_ZERO, (8, 8), (extra,)) for extra in (0, 2)),
        *((_RGB, (bits,) * 3, ()) for bits in (8, 16)),
        *((_RGB, (bits,) * 4, (extra,)) for bits in (8, 16) for extra in (0, 1, 2)),
        *((_PALETTE, (bits,), ()) for bits in (1, 2, 4, 8)),
        *((_CMYK, (bits,) * 4, ()) for bits in (8, 16)),
    }
)
_MODES_APART: Final = frozenset({(_RGB, (8,) * 3, ())})
_MODES_IN_JPEG: Final = frozenset({(_BLACK_IS_ZERO, (8,), ()), (_RGB, (8,) * 3, ()), (_YCBCR, (8,) * 3, ())})
# Rows that are shorter may pack into one byte again and again.
_SHORTEST_ROW = 4


class Unsupported(Exception):
    """A picture, but in no way that is decoded; ``reason``: the code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Tiff:
    """What the first directory of a TIFF says. ``tile``: width and length of its tiles; None where it is in strips.

    ``reduced``: it is the small copy of a picture that stands elsewhere in the file, as in cameras' raw files.
    """

    tile: tuple[int, int] | None
    reduced: bool

    def tiled(self, width: int, height: int) -> tuple[int, int]:
        """Pixels of a tile, and of all the tiles of a picture of that size. Raises `TooManyReads`."""
        across, down = self.tile or (width, height)
        tiles = -(-width // across) * -(-height // down)
        if tiles > MAX_STRIPS:
            raise TooManyReads
        return across * down, tiles * across * down


def read_tiff(data: bytes) -> Tiff:
    """Look at the directories of a TIFF (classic or big). Raises `BadStructure`, `TooManyReads`."""
    first = _first(data)
    if max((first.tags[tag][1] for tag in _OFFSETS if tag in first.tags), default=0) > MAX_STRIPS:
        raise TooManyReads
    tile = None
    if _TILE_WIDTH in first.tags or _TILE_LENGTH in first.tags:
        for tag in (_TILE_WIDTH, _TILE_LENGTH):
            kind, count, _ = first.tags.get(tag, (0, 0, 0))
            if kind not in _OF_TILES or count != 1:
                raise BadStructure
        tile = first.one(_TILE_WIDTH, 0), first.one(_TILE_LENGTH, 0)
        if not all(tile):
            raise BadStructure
    said = bool(first.one(_NEW_SUBFILE, 0) & 1) or first.one(_OLD_SUBFILE, 0) == 2
    return Tiff(tile, said or any(other > first.pixels() for other in _other_pictures(data, first)))


def check_mode(data: bytes) -> None:
    """Refuse what no test has shown to be read as it was meant.

    Raises `BadStructure`, `TooManyReads`, `Unsupported`.
    """
    first = _first(data)
    compression = first.one(_COMPRESSION, _NONE)
    if compression not in _COMPRESSIONS:
        raise Unsupported("UNSUPPORTED_FORMAT")
    samples = first.one(_SAMPLES, 1)
    bits = first.values(_BITS, (1,))
    mode = (
        first.one(_PHOTOMETRIC, _WHITE_IS_ZERO),
        bits * samples if len(bits) == 1 and samples <= 4 else bits,
        first.values(_EXTRA, ()),
    )
    apart = first.one(_PLANAR, _TOGETHER) == _APART
    known = _MODES_IN_JPEG if compression == _JPEG else _MODES_APART if apart and samples > 1 else _MODES
    predicted = first.one(_PREDICTOR, 1)
    if (
        mode not in known
        or len(mode[1]) != samples
        or (compression == _JPEG and apart)
        or set(first.values(_FORMAT, (1,))) != {1}
        or first.one(_FILL_ORDER, 1) != 1
        or predicted not in (1, 2)
        or (predicted == 2 and mode[1][0] not in (8, 16))
    ):
        raise Unsupported("UNSUPPORTED_MODE")


def check_pieces(data: bytes) -> None:
    """Ask for every strip or tile, and for as much in each as the picture needs.

    Raises `BadStructure`, `TooManyReads`, `Unsupported`.
    """
    first = _first(data)
    compression, tables = first.one(_COMPRESSION, _NONE), first.bytes_of(_JPEG_TABLES)
    tiled = _TILE_WIDTH in first.tags
    offsets = first.values(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    counts = first.values(_TILE_COUNTS if tiled else _STRIP_COUNTS, ())
    pieces = list(_pieces(first))
    if not len(offsets) == len(counts) == len(pieces):
        raise BadStructure
    view = memoryview(data)
    for at, count, piece in zip(offsets, counts, pieces, strict=True):
        if not at or not count or at + count > len(data):
            raise BadStructure
        if not _is_whole(view[at : at + count], compression, piece, tables):
            raise BadStructure


@dataclass(frozen=True)
class _Piece:
    """A strip or a tile: pixels of a row, bytes of a row; rows that it has to have, and may have."""

    width: int
    row: int
    rows: int
    most_rows: int
    samples: int


def _pieces(first: _Directory) -> Iterator[_Piece]:
    """The parts that a picture is in, in the order of their offsets."""
    samples, (width, height) = first.one(_SAMPLES, 1), first.size()
    bits = first.values(_BITS, (1,))
    planes = samples if first.one(_PLANAR, _TOGETHER) == _APART else 1
    each = sum(bits if len(bits) == samples else bits[:1] * samples) // planes
    if _TILE_WIDTH in first.tags:
        across, down = first.one(_TILE_WIDTH, 0), first.one(_TILE_LENGTH, 0)
        heights = [down] * -(-height // down)
    else:
        across, down = width, min(height, first.one(_STRIP_ROWS, height))
        if not down:
            raise BadStructure
        heights = [min(down, height - top) for top in range(0, height, down)]
    columns = -(-width // across)
    if columns * len(heights) * planes > MAX_STRIPS:
        raise TooManyReads
    for _ in range(planes):
        for rows in heights:
            yield from [_Piece(across, -(-across * each // 8), rows, down, samples // planes)] * columns


def _is_whole(coded: memoryview, compression: int, piece: _Piece, tables: bytes) -> bool:
    """Whether a strip or tile has all its rows, as far as its coding tells."""
    if compression == _NONE:
        return len(coded) >= piece.row * piece.rows
    if compression in (_DEFLATE, _OLD_DEFLATE):
        return holds([coded], piece.row * piece.rows, piece.row * piece.most_rows)
    if compression == _JPEG:
        return _is_whole_jpeg(bytes(coded), piece, tables)
    # libtiff says itself where rows are missing.
    return piece.row < _SHORTEST_ROW or not FILLED_UP.search(coded)


def _is_whole_jpeg(coded: bytes, piece: _Piece, tables: bytes) -> bool:
    data = b"\xff\xd8" + tables[2:].removesuffix(b"\xff\xd9") + coded[2:]
    scans, frame = jpeg_scans(data, most=32), jpeg_frame(data)
    sound = jpegs.is_sound(data, cmyk=False)
    if scans.arithmetic or sound is None:
        raise Unsupported("UNSUPPORTED_FORMAT")
    if frame is None or coded[:2] != b"\xff\xd8":
        return False
    width, height, samples = frame
    fits = width == piece.width and piece.rows <= height <= piece.most_rows and samples == piece.samples
    return sound and scans.complete and fits


@dataclass(frozen=True)
class _Directory:
    """The entries of one directory: of each tag the type, the count and the place of its value."""

    data: bytes = field(repr=False)
    order: Literal["little", "big"]
    big: bool
    tags: dict[int, tuple[int, int, int]]
    following: int

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """The whole numbers of an entry. Raises `BadStructure`, `TooManyReads`."""
        if tag not in self.tags:
            return default
        kind, count, _ = self.tags[tag]
        size = _WHOLE_NUMBERS.get(kind, 0)
        if not size or not count:
            raise BadStructure
        if count > MAX_STRIPS:
            raise TooManyReads
        at = self._place(tag, size)
        return tuple(int.from_bytes(self.data[p : p + size], self.order) for p in range(at, at + size * count, size))

    def one(self, tag: int, default: int) -> int:
        """The one number of an entry; Pillow and libtiff would take the first of several, or none."""
        (value,) = values if len(values := self.values(tag, (default,))) == 1 else (None,)
        if value is None:
            raise BadStructure
        return value

    def bytes_of(self, tag: int) -> bytes:
        """The bytes of an entry; none where there is none. Raises `BadStructure`."""
        if tag not in self.tags:
            return b""
        if self.tags[tag][0] not in (1, _UNDEFINED):
            raise BadStructure
        at = self._place(tag, 1)
        return self.data[at : at + self.tags[tag][1]]

    def size(self) -> tuple[int, int]:
        return self.one(_WIDTH, 0), self.one(_LENGTH, 0)

    def pixels(self) -> int:
        width, height = self.size()
        return width * height

    def _place(self, tag: int, size: int) -> int:
        _, count, at = self.tags[tag]
        held = 8 if self.big else 4
        if size * count > held:
            at = int.from_bytes(self.data[at : at + held], self.order)
        if at + size * count > len(self.data):
            raise BadStructure
        return at


def _first(data: bytes) -> _Directory:
    order, big = _header(data)
    at = int.from_bytes(data[8:16] if big else data[4:8], order)
    return _directory(data, order, at, big=big)


def _header(data: bytes) -> tuple[Literal["little", "big"], bool]:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    return order, int.from_bytes(data[2:4], order) == 43


def _directory(data: bytes, order: Literal["little", "big"], start: int, *, big: bool) -> _Directory:
    """Raises `BadStructure`, `TooManyReads`."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    head, width, wide = (8, 20, 8) if big else (2, 12, 4)
    said, tags = number(start, head), dict[int, tuple[int, int, int]]()
    if said > MAX_STRIPS:
        raise TooManyReads
    for index in range(said):
        at = start + head + index * width
        if at + width > len(data):
            break
        tag = number(at, 2)
        # Pillow takes the last of two, libtiff the first.
        if tag in tags and tag < _LAST_BASELINE_TAG:
            raise BadStructure
        tags[tag] = number(at + 2, 2), number(at + 4, wide), at + 4 + wide
    return _Directory(data, order, big, tags, number(start + head + said * width, wide))


def _other_pictures(data: bytes, first: _Directory) -> Iterator[int]:
    """Pixels of each picture behind the first, or below one. What cannot be read is none. Raises `TooManyReads`."""
    waiting, seen, entries = _behind(first), set[int](), len(first.tags)
    while waiting:
        at = waiting.pop()
        if not at or at in seen or at >= len(data):
            continue
        seen.add(at)
        with suppress(BadStructure):
            directory = _directory(data, first.order, at, big=first.big)
            entries += 1 + len(directory.tags)
            if entries > MAX_STRIPS:
                raise TooManyReads
            waiting += _behind(directory)
            yield directory.pixels()


def _behind(directory: _Directory) -> list[int]:
    return [directory.following, *directory.values(_SUBDIRECTORIES, ())]
