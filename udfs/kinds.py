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
# Of these the brands that follow tell what is in it.
_CONTAINERS = (b"mif1", b"msf1")
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
    # Two letters are too few: a bitmap's reserved bytes are zero, and its second header is one of a few.
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "bmp" if int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS else None
    return "ppm" if _PORTABLE_MAP.match(head) else None


def _coded(head: bytes) -> str | None:
    """What codes the picture in an ISO base media file, by the brands in its first box."""
    brand, length = head[8:12], int.from_bytes(head[:4], "big")
    if brand in _CONTAINERS:
        others = {head[at : at + 4] for at in range(16, min(length, len(head)), 4)}
        return "heif" if others & set(_HEIF) and not others & set(_AVIF) else "avif"
    return "avif" if brand in _AVIF else "heif" if brand in _HEIF else None


def _first_directory(head: bytes) -> int:
    order, big = ("little" if head[:1] == b"I" else "big"), b"+" in head[2:4]
    place = head[8:16] if big else head[4:8]
    return int.from_bytes(place, order)  # type: ignore[arg-type]
