"""PNGs whose pixels end early, although every sum is right: Pillow decodes them, black from there on."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, chunk, failure
from udfs import pngs
from udfs.decode import decode

pytestmark = pytest.mark.unit

SIDE = 48
PICTURE = small_astronaut(SIDE)
ROWS = b"".join(b"\0" + row.tobytes() for row in PICTURE)
CORRUPT = ("broken", "CORRUPT")


def png(stream: bytes, *, interlaced: int = 0, size: tuple[int, int] = (SIDE, SIDE), before: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def passes(count: int) -> bytes:
    """The rows of the first passes of Adam7."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [PICTURE[top::down, left::across] for left, top, across, down in steps[:count]]
    return b"".join(b"\0" + row.tobytes() for part in parts for row in part)


def test_sound_ones_are_decoded_however_they_are_parted() -> None:
    stream = zlib.compress(ROWS)
    whole = png(stream)
    parts = b"".join(chunk(b"IDAT", stream[at : at + 7]) for at in range(0, len(stream), 7))
    for data in (
        whole,
        png(zlib.compress(passes(7)), interlaced=1),
        whole.replace(chunk(b"IDAT", stream), parts),
        whole.replace(chunk(b"IDAT", stream), chunk(b"IDAT", b"") + chunk(b"IDAT", stream) + chunk(b"IDAT", b"")),
        png(stream + b"left over"),
        png(zlib.compress(ROWS, 0)),
    ):
        assert np.array_equal(decode(data, PARAMS).pixels, PICTURE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (700, 401)])
def test_sound_ones_of_all_modes_and_sizes(mode: str, size: tuple[int, int]) -> None:
    pixels = noise(size[1], size[0])
    image = (
        Image.fromarray(pixels[:, :, 0].astype("<u2") * 257) if "16" in mode else Image.fromarray(pixels).convert(mode)
    )
    pngs.check(encoded(image))
    assert decode(encoded(image), PARAMS).pixels.shape == (size[1], size[0], 3)


def test_guarantee_16_pixels_that_end_early_are_broken_though_every_sum_is_right() -> None:
    stream = zlib.compress(ROWS)
    wrong_sum = stream[:-4] + bytes(4)
    for data in (
        png(zlib.compress(ROWS[: len(ROWS) // 2])),
        png(zlib.compress(ROWS[:-1])),
        png(stream[: len(stream) // 2]),
        png(stream[:-4]),
        png(wrong_sum),
        png(b""),
        png(stream, size=(SIDE, SIDE + 1)),
        png(stream, size=(SIDE, SIDE // 2)),  # and the rows of the other half are there
        *(png(zlib.compress(passes(count)), interlaced=1) for count in range(1, 7)),
    ):
        assert failure(data) == CORRUPT


def test_guarantee_16_what_stands_behind_another_chunk_is_not_decoded_and_not_counted() -> None:
    stream = zlib.compress(ROWS)
    first, second = chunk(b"IDAT", stream[:900]), chunk(b"IDAT", stream[900:])
    whole = png(stream)
    assert np.array_equal(decode(whole.replace(chunk(b"IDAT", stream), first + second), PARAMS).pixels, PICTURE)
    assert failure(whole.replace(chunk(b"IDAT", stream), first + chunk(b"tEXt", b"a\0b") + second)) == CORRUPT
    two = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    assert failure(png(stream, before=two)) == CORRUPT


def test_guarantee_16_a_first_frame_that_is_smaller_than_the_picture_is_broken() -> None:
    control = chunk(b"acTL", struct.pack(">II", 1, 0))

    def framed(height: int) -> bytes:
        frame = struct.pack(">IIIIIHHBB", 0, SIDE, height, 0, 0, 1, 10, 0, 0)
        return png(zlib.compress(ROWS), before=control + chunk(b"fcTL", frame))

    assert np.array_equal(decode(framed(SIDE), PARAMS).pixels, PICTURE)
    assert failure(framed(SIDE // 2)) == CORRUPT


def test_guarantee_14_a_stream_is_counted_in_pieces_and_no_further_than_its_pixels() -> None:
    bomb = zlib.compress(bytes(100_000_000))
    made = 0
    inflate = zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self._stream = inflate()

        def decompress(self, part: bytes, most: int) -> bytes:
            nonlocal made
            out = self._stream.decompress(part, most)
            made += len(out)
            return out

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Counted)
        assert failure(png(bomb)) == CORRUPT
    assert made < 1_000_000
    assert pngs.holds([memoryview(bomb)], 100_000_000, 100_000_000)
