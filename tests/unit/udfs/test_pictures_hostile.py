"""Pictures made to take more than they show: refused by what the codec works by, before anything is decoded."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, chunk, failure
from udfs import avif, limits, pngs
from udfs.decode import FORMATS, decode
from udfs.kinds import HEAD_BYTES, image_kind
from udfs.limits import BadStructure, TooManyReads, jpeg_scans
from udfs.params import PipelineParams
from udfs.tiffs import read_tiff

pytestmark = pytest.mark.unit


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel is decoded."""
    for name in ("_jpeg", "_rgb"):
        monkeypatch.setattr(f"udfs.decode.{name}", lambda *_: pytest.fail("decoded"))


def tiff(
    *entries: tuple[int, int, int], size: tuple[int, int] = (16, 16), data: bytes = b"", order: str = "<"
) -> bytes:
    """A grey TIFF in Deflate; entries beside the usual ones are (tag, type, value)."""
    usual = [(256, 4, size[0]), (257, 4, size[1]), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries = tuple(sorted([*usual, *entries]))
    place = 8 + 2 + 12 * len(entries) + 4
    place_of = {324: place, 325: len(data)}
    packed = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + (struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", place_of.get(tag, value)))
        for tag, kind, value in entries
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", len(entries)) + packed + bytes(4) + data


def tiled(
    width: int, length: int, *entries: tuple[int, int, int], size: tuple[int, int] = (16, 16), order: str = "<"
) -> bytes:
    data = zlib.compress(bytes(min(width * length, 1_000_000)))
    return tiff(
        (322, 4, width), (323, 4, length), (324, 4, 0), (325, 4, 0), *entries, size=size, data=data, order=order
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_guarantee_14_tiles_that_are_larger_than_the_picture_are_refused(order: str) -> None:
    assert decode(tiled(256, 256, order=order), PARAMS).pixels.shape == (16, 16, 3)
    # Such files took 1.6 GiB; the sizes that libtiff works by are now those that are looked at.
    assert failure(tiled(40_000, 40_000, order=order)) == ("too_large", "TOO_MANY_PIXELS")
    assert failure(tiled(9_984, 9_984, order=order), PipelineParams(max_decode_bytes=500_000_000)) == (
        "too_large", "TOO_MUCH_MEMORY",
    )  # fmt: skip


def test_guarantee_14_tiles_are_counted_together(undecoded: None) -> None:
    assert failure(tiled(16, 6_000_000, size=(10_000, 100))) == ("too_large", "TOO_MANY_PIXELS")
    assert failure(tiled(1, 1, size=(1_000, 1_000))) == ("too_large", "TOO_MANY_PARTS")


@pytest.mark.parametrize(
    "entries",
    [
        [(322, 4, 16), (323, 4, 16), (322, 4, 40_000)],
        [(322, 4, 16)],
        [(322, 4, 16), (323, 4, 0)],
        [(322, 11, 16), (323, 4, 16)],
        [(277, 3, 4)],
        [(256, 4, 40_000)],
    ],
)
def test_guarantee_14_what_pillow_and_libtiff_would_read_differently_is_broken(
    undecoded: None, entries: list[tuple[int, int, int]]
) -> None:
    """One takes the last of two, the other the first."""
    assert failure(tiff(*entries)) == ("broken", "CORRUPT")
    with pytest.raises(BadStructure):
        read_tiff(tiff(*entries))


@pytest.mark.parametrize(("kind", "value", "reduced"), [(4, 1, True), (3, 3, True), (4, 0, False), (4, 2, False)])
def test_the_small_copy_in_a_camera_s_raw_file_is_not_taken_for_the_picture(
    kind: int, value: int, reduced: bool
) -> None:
    data = tiled(256, 256, (254, kind, value))
    assert read_tiff(data).reduced == reduced
    if reduced:
        assert failure(data) == ("broken", "UNSUPPORTED_FORMAT")
    else:
        assert decode(data, PARAMS).pixels.shape[2] == 3


def test_guarantee_14_a_directory_without_end_is_refused(undecoded: None) -> None:
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 100_000) + bytes(20 * 100_000)
    assert failure(big) == ("too_large", "TOO_MANY_PARTS")


def test_guarantee_14_scans_behind_many_comments_are_refused(undecoded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of scans ended with its bound, and what stood behind was decoded."""
    monkeypatch.setattr(limits, "MAX_READS", 10_000)
    data = encoded(small_astronaut(64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    hidden = data[:-2] + b"\xff\xfe\0\2" * 10_000 + data[last:-2] * 1_000 + b"\xff\xd9"
    assert failure(hidden) == ("too_large", "TOO_MANY_PARTS")
    with pytest.raises(TooManyReads):
        jpeg_scans(hidden, 32)


def test_guarantee_14_chunks_behind_the_pixels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pngs, "MAX_READS", 1_000)
    plain = encoded(small_astronaut(16))
    end = plain.rindex(b"IEND") - 4
    assert decode(plain[:end] + chunk(b"juNk", b"") * 100 + plain[end:], PARAMS).pixels.shape == (16, 16, 3)
    many = plain[:end] + chunk(b"juNk", b"") * 1_001 + plain[end:]
    assert failure(many) == ("too_large", "TOO_MANY_PARTS")


def test_guarantee_14_pictures_in_plain_text_are_none(undecoded: None) -> None:
    """1 MiB of comments took half a minute, by the square."""
    for start in (b"P1\n9 9\n", b"P2\n9 9\n255\n", b"P3\n9 9\n255\n"):
        assert failure(start + b"#\n" * 1_000 + b"1 " * 300) == ("broken", "NOT_AN_IMAGE")


def test_guarantee_14_what_pillow_decodes_in_python_is_small(undecoded: None) -> None:
    colours = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, 10_000, 10_000, 1, 8, 1, 0, 0, 0, 256, 0)
    runs = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + colours + b"\1\1\0\0" * 10_000
    assert image_kind(runs) == "bmp"
    assert failure(runs) == ("too_large", "TOO_MANY_PIXELS")


def jpeg2000(side: int) -> bytes:
    """87 bytes: a header that makes OpenJPEG reserve a structure for each of ``side`` x ``side`` tiles."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, 1, 1, 0, 0, 3) + bytes([7, 1, 1]) * 3
    coding = struct.pack(">BBHBBBBBB", 0, 0, 1, 0, 0, 4, 4, 0, 1)
    tile = segment(0xFF90, struct.pack(">HIBB", 0, 14, 0, 1)) + b"\xff\x93"
    head = b"\xff\x4f" + segment(0xFF51, size) + segment(0xFF52, coding) + segment(0xFF5C, b"\x40\x40")
    return head + tile + b"\xff\xd9"


def test_guarantee_14_jpeg_2000_is_told_and_not_decoded(undecoded: None) -> None:
    for data in (jpeg2000(255), encoded(small_astronaut(64), "JPEG2000")):
        assert failure(data) == ("broken", "UNSUPPORTED_FORMAT")


def resized(data: bytes, width: int, height: int) -> bytes:
    """An AVIF whose container shows another size."""
    changed = bytearray(data)
    at = changed.index(b"ispe") + 8
    changed[at : at + 8] = struct.pack(">II", width, height)
    return bytes(changed)


@pytest.fixture(scope="module")
def large_avif() -> bytes:
    return encoded(Image.new("RGB", (2_000, 1_500)), "AVIF", speed=10)


def test_guarantee_14_an_avif_is_held_to_the_size_of_its_frames(large_avif: bytes, undecoded: None) -> None:
    assert avif.frame_pixels(large_avif) == 3_000_000
    small = resized(large_avif, 16, 16)
    assert failure(small, PipelineParams(max_pixels=2_999_999)) == ("too_large", "TOO_MANY_PIXELS")
    assert failure(small, PipelineParams(max_decode_bytes=29_000_000)) == ("too_large", "TOO_MUCH_MEMORY")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_honest_avif_has_the_pixels_that_it_shows(mode: str) -> None:
    data = encoded(Image.new(mode, (101, 67)), "AVIF")
    assert avif.frame_pixels(data) == 101 * 67 * (2 if mode == "RGBA" else 1)
    assert decode(data, PARAMS).pixels.shape == (67, 101, 3)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_guarantee_16_an_avif_that_was_filled_up_is_broken(filling: bytes) -> None:
    """dav1d decodes it without a word: who stands there is not seen."""
    data = encoded(small_astronaut(256), "AVIF", quality=80, speed=10)
    half = len(data) // 2
    for hole in (len(data) - half, 4_096, 512):
        assert failure(data[:half] + filling * hole + data[half + hole :]) == ("broken", "CORRUPT")


@pytest.mark.parametrize("shade", [0, 255, 128])
def test_flat_pictures_are_not_taken_for_filled_up_ones(shade: int) -> None:
    pixels = np.full((600, 800, 3), shade, np.uint8)
    assert np.abs(decode(encoded(pixels, "AVIF", speed=10), PARAMS).pixels.astype(int) - shade).max() <= 2


def test_guarantee_14_a_film_is_no_picture(undecoded: None) -> None:
    frames = [Image.new("RGB", (50, 40), (shade, 0, 0)) for shade in (0, 90, 180)]
    film = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert avif.is_sequence(film)
    assert failure(film) == ("broken", "UNSUPPORTED_FORMAT")
    # Frames of a film may have sizes of their own, up to the bits of their numbers.
    assert avif.frame_pixels(film) == 64 * 64
    # libavif takes the film of what is not called a picture, too.
    assert avif.is_sequence(film.replace(b"avis", b"mif1", 1))
    assert not avif.is_sequence(film.replace(b"avis", b"avif", 1))


def test_guarantee_14_whatever_an_avif_says_it_is_counted_or_refused(large_avif: bytes) -> None:
    data, rng = bytearray(large_avif), np.random.default_rng(7)
    for _ in range(3_000):
        places = rng.integers(0, 400, 3)
        changed = bytearray(data)
        for place in places:
            changed[place] = int(rng.choice([0, 1, 2, 4, 15, 68, 127, 128, 255]))
        with contextlib.suppress(BadStructure, TooManyReads):
            assert avif.frame_pixels(bytes(changed)) >= 0
    for length in range(0, 400, 7):
        with pytest.raises(BadStructure):
            avif.frame_pixels(bytes(data[:length]))


def test_guarantee_14_frames_that_are_not_shown_count(large_avif: bytes) -> None:
    """Of an item with 1,000 frames only the last is seen, and all are decoded."""
    start = large_avif.index(b"mdat") + 4
    at = large_avif.index(b"\x12\0\n", start)
    payload = large_avif[at:]
    sequence_end = at + 4 + payload[3]
    frames = large_avif[sequence_end:]
    assert avif._pixels_of(payload) == 3_000_000
    assert avif._pixels_of(payload + frames * 3) == 12_000_000
    with pytest.raises(BadStructure):
        avif._pixels_of(frames)


def test_guarantee_14_text_is_no_picture_however_it_begins() -> None:
    texts = [
        b"P1 incident: the password is hunter2\n", b"P2\tquarterly report", b"P3\nkey: abc", b"P4 people came",
        b"P6 2 of them and a key", b"P5 1 2 three", b"GIF8_API_KEY=secret", b"BM=1234" + bytes(4),
        b"BM1234" + bytes(20), b"\xff\xd8\xffsecret", b"II*\0secret", b"MM\0+secret and more",
    ]  # fmt: skip
    assert {text: image_kind(text) for text in texts} == dict.fromkeys(texts)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_head(kind: str) -> None:
    for mode in ("L", "RGB"):
        data = encoded(Image.fromarray(noise(30, 40)).convert(mode), kind)
        assert image_kind(data[:HEAD_BYTES], len(data)) == image_kind(data) == kind.lower()
    if kind == "PPM":
        assert image_kind(encoded(Image.new("1", (9, 7)), "PPM")) == "ppm"
        assert image_kind(b"P5\n# CREATOR: GIMP PNM Filter Version 1.1\n9 7\n65535\n" + bytes(126)) == "ppm"
