"""Whether a JPEG is whole: half of one with an end marker behind it decodes without an error, its lower part grey."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import simplejpeg

from udfs.limits import EOI, SOS, jpeg_segments

_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
_RESTART = re.compile(rb"(\xff[\xd0-\xd7])")
_FILLED_UP = re.compile(rb"\0{3}\xff+[\xc0-\xfe]")
# An arithmetic coder leaves out zeros at an end (T.81, D.1.8), and its decoder reads ahead: both look like two bytes
# that are missing.
_LEFT_OUT = bytes(2)
_NOISE = b"\x6b\xd4\x19\xb2" * 16


def is_sound(data: bytes, *, cmyk: bool) -> bool | None:
    """Whether libjpeg reads what is coded without a warning: nothing missing, damaged or left over in any scan.

    What codes no pixel is left aside, for there its warnings matter to nobody: bytes between the segments of a
    header, an unknown revision of JFIF. None: libjpeg-turbo cannot read it so (subsampling that it has no name for),
    but it has its end, and no piece of coded data ends in zeros that a file was filled up with.
    """
    coded = _coded_only(data)
    try:
        simplejpeg.decode_jpeg(coded, "cmyk" if cmyk else "gray", min_factor=8)
    except ValueError as error:
        ended = coded.endswith(b"\xff\xd9") and not _FILLED_UP.search(coded)
        return None if ended and "subsampling" in str(error) else False
    return True


def with_noise_behind(data: bytes) -> bytes:
    """The same picture with bytes behind each piece of coded data, which a decoder comes to only if it lacks some.

    libjpeg has no warning for what an arithmetic decoder lacks: it goes on with zeros, as the standard says.
    """
    return b"".join(_rebuilt(data, _with_noise, keep=lambda _: True))


def _coded_only(data: bytes) -> bytes:
    return b"".join(_rebuilt(data, bytes, keep=lambda marker: marker not in _APPLICATION and marker != _COMMENT))


def _rebuilt(data: bytes, coded: Callable[[bytes], bytes], keep: Callable[[int], bool]) -> Iterator[bytes]:
    """The parts of a JPEG: the segments that are kept, and between them what scans code, changed by ``coded``."""
    yield b"\xff\xd8"
    scan = None
    for marker, at, end in jpeg_segments(data):
        if scan is not None:
            yield coded(data[scan : at - 2])
        if marker == EOI or keep(marker):
            yield data[at - 2 : end]
        scan = end if marker == SOS else None
    if scan is not None:
        yield coded(data[scan:])


def _with_noise(scan: bytes) -> bytes:
    pieces = _RESTART.split(scan)
    # A piece may end with bytes that fill up to the marker.
    pieces[::2] = [piece.rstrip(b"\xff") + _LEFT_OUT + _NOISE for piece in pieces[::2]]
    return b"".join(pieces)
