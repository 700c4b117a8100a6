"""Whether a PNG is whole: Pillow neither checks sums of pixel data, nor misses the rows that a stream ends before."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from udfs.limits import MAX_READS, BadStructure, TooManyReads

_PIECE: Final = 1 << 14  # bytes that are inflated at once: what is left of one is copied each time
_INFLATED: Final = 1 << 18
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Of each pass of Adam7: the first column and row, and the steps to the next (PNG, 8.2).
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class Cut(BadStructure):
    """The file ends before its end marker."""


def check(data: bytes) -> None:
    """Ask for the sum of each chunk, and for as many bytes of pixels as its header says, with their own sum.

    Of an animation these are the pixels of what Pillow decodes, the picture before its frames. A file that ends where
    no chunk does is cut. Raises `BadStructure`, `Cut`, `TooManyReads`.
    """
    header, pixels, ended = None, list[memoryview](), False
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            if header is not None or len(body) != 13:
                raise BadStructure
            header = bytes(body)
        elif kind == b"IDAT" and not ended:
            pixels.append(body)
        else:
            ended = ended or bool(pixels)  # Pillow takes what follows itself only
    if header is None or not holds(pixels, size := _bytes_of(header), size):
        raise BadStructure


def holds(pieces: Iterable[memoryview], least: int, most: int) -> bool:
    """Whether a zlib stream comes to its end, with its own sum, after so many bytes: counted, and not kept."""
    stream, count = zlib.decompressobj(), 0
    for piece in pieces:
        for at in range(0, len(piece), _PIECE):
            part, made = bytes(piece[at : at + _PIECE]), _INFLATED
            # (Where as much came as was asked for, more may be on its way.)
            while part or made == _INFLATED:
                try:
                    made = len(stream.decompress(part, _INFLATED))
                except zlib.error:
                    return False
                count += made
                if count > most or stream.eof:
                    return stream.eof and least <= count <= most
                part = stream.unconsumed_tail
    return False


def _bytes_of(header: bytes) -> int:
    """Bytes of all rows with their filters: a header says the size, and whether it is interlaced."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _CHANNELS:
        raise BadStructure
    each = bits * _CHANNELS[colour]
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in _PASSES]
    return sum((1 + -(-across * each // 8)) * down for across, down in sizes if across > 0 and down > 0)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk up to the last. Raises `BadStructure`, `Cut`, `TooManyReads`."""
    view, at = memoryview(data), 8
    for _ in range(MAX_READS):
        if at + 12 > len(data):
            raise Cut
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise BadStructure
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return
        yield kind, view[at + 8 : end]
        at = end + 4
    raise TooManyReads
