"""What a file is, by its first bytes."""

from __future__ import annotations

#: Bytes of a file's start that are enough to tell.
HEAD_BYTES = 32

_STARTS = {
    b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff",
    b"MM\0+": "tiff", b"\xff\x4f\xff\x51": "jpeg2000", b"\0\0\0\x0cjP  ": "jpeg2000",
}  # fmt: skip
_AVIF = (b"avif", b"avis", b"mif1", b"msf1")


def image_kind(data: bytes) -> str | None:
    """The format of what begins as one of the formats that are decoded (`udfs.decode.FORMATS`); None for all else.

    It is a look at the start only: what passes may still be broken. Text, keys, tables and archives do not pass.
    """
    head = bytes(data[:HEAD_BYTES])
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF:
        return "avif"
    # Two letters are too few: a bitmap's reserved bytes are zero, and white space follows a portable map's number.
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "bmp"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "ppm"
    return None
