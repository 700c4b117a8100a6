"""How many pixels decoding an AVIF makes, by its AV1 headers: the size that the container shows binds no decoder.

AV1 has no checksum, and its decoder goes on with whatever stands in place of what was lost: runs that no coder writes
show it.
"""

from __future__ import annotations

from udfs.boxes import FILLED_UP, MOST_PARTS, Bits, boxes, items, number, once, payloads
from udfs.limits import BadStructure, TooManyReads

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6


def is_sequence(data: bytes) -> bool:
    """Whether a film is decoded, not a picture: libavif's own choice. Raises `BadStructure`, `TooManyReads`."""
    brand = data[8:12]
    return brand == b"avis" or (brand != b"avif" and any(kind == b"moov" for kind, _, _ in boxes(data, 0, len(data))))


def frame_pixels(data: bytes) -> int:
    """Pixels of the frames of all AV1 items, counted from above. Raises `BadStructure`, `TooManyReads`.

    Also where a file was filled up.
    """
    top = once(data, 0, len(data))
    start, end = top[b"meta"]
    parts = once(data, start + 4, end)
    coded = {item for item, kind in items(data, *parts[b"iinf"]) if kind == b"av01"}
    return sum(_pixels_of(payload) for _, payload in payloads(data, parts, coded))


def _pixels_of(payload: bytes) -> int:
    """Frames times the largest that their sequence allows."""
    if FILLED_UP.search(payload):
        raise BadStructure
    at = frame = pixels = 0
    for _ in range(MOST_PARTS):
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
    bits = Bits(header)
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


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = number(data, at + index, 1)
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise BadStructure
