"""What decoding one image may take, told from its header and its structure before any pixel is decoded.

A clock would make results depend on the machine, and no clock can stop a C decoder. So each thing that decoding takes
time or memory for has a bound: pixels, bytes at once, scans of a JPEG, and reads by Pillow's own loops over chunks,
boxes and segments. A codec that works by other sizes than the one that Pillow shows (tiles, frames) is held to those,
and a look that comes to no end within its bound refuses the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: Reads that Pillow may make of one file. A chunk, box or segment takes two to four of a microsecond each.
MAX_READS = 150_000
#: Pixels of a picture that Pillow decodes in Python, one by one.
MAX_SLOW_PIXELS = 1_000_000
#: Strips or tiles of a TIFF: Pillow keeps some 200 bytes for each before it looks at the first.
MAX_STRIPS = 65_536

# Bytes a pixel that a codec holds beside Pillow's own picture (measured at 64 MP, rounded up): libtiff a strip as
# large as the image, libwebp two canvases and their copies, libavif and libheif their planes.
_CODEC = {"TIFF": 6, "WEBP": 12, "AVIF": 10, "HEIF": 6}
_NATIVE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # all others: 4
_OUTPUT = 3
_COEFFICIENT = 2  # bytes of one, of which a JPEG in several scans keeps all

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
SOI, EOI, SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_UNSENT = 255


class TooManyReads(Exception):
    """A file of so many parts that reading their list alone takes seconds."""


class BadStructure(ValueError):
    """A file whose structure is damaged, or says something twice: decoders would not agree on it."""


class BoundedReader(io.BytesIO):
    """Bytes that can be read so many times. Raises `TooManyReads`."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise TooManyReads
        return super().read(size)


@dataclass(frozen=True)
class Scans:
    """How often a JPEG goes over its pixels. ``several``: it may, and so all coefficients are kept in memory.

    ``complete``: its scans bring all components, in all their bits. ``arithmetic``: its entropy coding.
    """

    count: int
    several: bool
    complete: bool = True
    arithmetic: bool = False


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Markers of a JPEG as libjpeg meets them, with the start and the end of what belongs to each.

    The last is the end marker, where there is one. What a scan codes stands between its end and the next marker.

    Raises `TooManyReads`.
    """
    at = 2
    for _ in range(MAX_READS):
        found = _MARKER.search(data, at)
        if found is None or found[0][1] == SOI:
            return
        marker, at = found[0][1], found.end()
        if marker == EOI:
            yield marker, at, at
            return
        if marker == _TEM:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return
        yield marker, at, at + length
        at += length
    raise TooManyReads


def jpeg_scans(data: bytes, most: int) -> Scans:
    """Count the scans of a JPEG, as libjpeg meets them; stops above ``most``. What is no JPEG has none.

    Raises `TooManyReads`.
    """
    frame, components, count, several, sent = 0, 0, 0, False, dict[int, bytearray]()
    for marker, at, end in jpeg_segments(data):
        if marker in _SOF and end - at >= 8:
            frame, several, components = marker, marker in _PROGRESSIVE, data[at + 7]
            places = range(at + 8, min(end, at + 8 + 3 * components), 3)
            sent = {data[place]: bytearray([_UNSENT] * 64) for place in places}
        elif marker == SOS:
            count += 1
            several = several or data[at + 2] < components
            if not several or count > most:
                break
            _note_scan(data[at:end], sent, progressive=frame in _PROGRESSIVE)
    complete = not several or not any(map(any, sent.values()))
    return Scans(count, several, complete, frame in _ARITHMETIC)


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and components of a JPEG's one frame. Raises `TooManyReads`."""
    frames = [data[at:end] for marker, at, end in jpeg_segments(data) if marker in _SOF]
    if len(frames) != 1 or len(frames[0]) < 8:
        return None
    (head,) = frames
    return int.from_bytes(head[5:7], "big"), int.from_bytes(head[3:5], "big"), head[7]


def _note_scan(header: bytes, sent: dict[int, bytearray], *, progressive: bool) -> None:
    """Enter what a scan brings: for each coefficient of a component, how many low bits are still to come."""
    components = header[2] if len(header) > 2 else 0
    first, last, bits = header[3 + 2 * components :][:3].ljust(3, b"\0") if progressive else (0, 63, 0)
    last = min(last, 63)
    for component in header[3 : 3 + 2 * components : 2]:
        if component in sent and first <= last:
            sent[component][first : last + 1] = bytes([bits & 15]) * (last + 1 - first)


def decode_bytes(
    kind: str | None,
    mode: str,
    size: tuple[int, int],
    *,
    factor: int,
    turned: bool,
    coefficients: bool,
    codec_pixels: int = 0,
) -> int:
    """The most memory that decoding takes at once, from a header: format and mode as Pillow names them, and size.

    ``factor``: of a JPEG that is decoded smaller; ``turned``: turned upright afterwards, which takes a copy;
    ``coefficients``: of a JPEG in several scans; ``codec_pixels``: what the codec has at once, if more than ``size``.
    """
    pixels = size[0] * size[1]
    each = _NATIVE.get(mode, 4) + _OUTPUT * (1 + turned)
    codec = max(pixels, codec_pixels) * _CODEC.get(kind or "", 0)
    kept = _COEFFICIENT * {"L": 1, "CMYK": 4}.get(mode, 3) if coefficients else 0
    return pixels * each // (factor * factor) + pixels * kept + codec
