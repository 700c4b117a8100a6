"""What a file is, by its first bytes."""

from __future__ import annotations

import re

#: Bytes of a file's start that are enough to tell; comments may stand before a portable map's numbers.
HEAD_BYTES = 256

_STARTS = {
    b"\x89PNG": "png", b"GIF87a": "gif", b"GIF89a": "gif", b"II*\0": "tiff", b"MM\0*": "tiff",
    b"II+\0": "tiff", b"MM\0+": "tiff", b"\xff\x4f\xff\x51": "jpeg2000", b"\0\0\0\x0cjP  ": "jpeg2000",
}  # fmt: skip
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
# Of these the brands that follow tell what is in it. The decoders know the first two only.
_CONTAINERS = (b"mif1", b"msf1")
_OTHER_CONTAINERS = (b"mif2", b"miaf", b"MiHE", b"MiHB", b"MiHA", b"MA1A", b"MA1B", b"avci", b"avcs")
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
# A portable map in binary: width, height and, but for one of bits, the largest value.
_BLANK = rb"\s(?:\s|#[^\r\n]*[\r\n])*"
_NUMBER = _BLANK + rb"\d{1,9}"
_PORTABLE_MAP = re.compile(rb"(?:P4|P[56]%b)%b%b\s" % (_NUMBER, _NUMBER, _NUMBER))


def image_kind(data: bytes, size: int | None = None) -> str | None:
    """The format of what begins as one of the formats that are decoded (`udfs.decode.FORMATS`), or as JPEG 2000.

    None for all else. ``size``: of the whole file, where ``data`` is its start only (`HEAD_BYTES` of it).
    It is a look at the start: what passes may still be broken. Text, keys, tables and archives do not pass.
    """
    head, size = bytes(data[:HEAD_BYTES]), len(data) if size is None else size
    kind = next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)
    if kind == "tiff":
        return kind if _first_directory(head) < size else None
    if kind:
        return kind
    # A marker follows a JPEG's start, or bytes that fill up to it.
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg" if head[3:4] >= b"\xc0" or size == 3 else None
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _coded(head)
    if head.startswith(b"BM"):
        return _bitmap(head)
    return "ppm" if _PORTABLE_MAP.match(head) else None


def _bitmap(head: bytes) -> str | None:
    """Two letters are too few: a second header is one of a few, and what some programs mark its reserved bytes with."""
    header, begin = int.from_bytes(head[14:18], "little"), int.from_bytes(head[10:14], "little")
    known = header in _BITMAP_HEADERS and (head[6:10] == bytes(4) or begin >= 14 + header)
    return "bmp" if known else None


def with_known_brand(data: bytes) -> bytes:
    """An ISO base media file under the picture's brand among those that it has, where decoders know no other.

    >>> with_known_brand(bytes([0, 0, 0, 24]) + b"ftypmiaf" + bytes(4) + b"mif1heic")[4:12]
    b'ftypheic'
    """
    brand, others = data[8:12], _brands(data)
    if data[4:8] != b"ftyp" or brand in (*_AVIF, *_HEIF, *_CONTAINERS) or not others & {b"mif1", *_OTHER_CONTAINERS}:
        return data
    found = next((one for one in (*_AVIF, *_HEIF) if one in others), None)
    return data[:8] + found + data[12:] if found else data


def _brands(head: bytes) -> set[bytes]:
    """All brands in an ISO base media file's first box."""
    length = int.from_bytes(head[:4], "big")
    return {head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head), HEAD_BYTES), 4))}


def _coded(head: bytes) -> str | None:
    """What codes the picture in an ISO base media file, by the brands in its first box."""
    brand, others = with_known_brand(head)[8:12], _brands(head)
    if brand in _CONTAINERS:
        return "heif" if others & set(_HEIF) and not others & set(_AVIF) else "avif"
    return "avif" if brand in _AVIF else "heif" if brand in _HEIF else None


def _first_directory(head: bytes) -> int:
    order, big = ("little" if head[:1] == b"I" else "big"), b"+" in head[2:4]
    place = head[8:16] if big else head[4:8]
    return int.from_bytes(place, order)  # type: ignore[arg-type]
