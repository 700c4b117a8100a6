"""TIFFs: what is decoded has the pixels that were meant, and what lacks a part is broken."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, failure
from udfs.arrays import AnyArray
from udfs.decode import decode
from udfs.limits import TooManyReads
from udfs.tiffs import read_tiff

pytestmark = pytest.mark.unit

SIDE = 48
PICTURE = small_astronaut(SIDE)
GREY = PICTURE[:, :, 1]
GREY_SHOWN = np.repeat(GREY[:, :, None], 3, axis=2)
CORRUPT, FORMAT, MODE = ("broken", "CORRUPT"), ("broken", "UNSUPPORTED_FORMAT"), ("broken", "UNSUPPORTED_MODE")
Tags = dict[int, tuple[int, ...]]


def tiff(
    tags: Tags, pieces: Sequence[bytes | None], *, order: str = "<", tables: bytes = b"", last: bytes = b""
) -> bytes:
    """One directory behind its pieces. None: a piece without a place. ``last``: what stands at the end of the file."""
    tags = {256: (SIDE,), 257: (SIDE,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)} | tags
    body, places = bytearray(8), []
    for piece in pieces:
        places.append(len(body) if piece is not None else 0)
        body += piece or b""
    of_offsets, of_counts = (324, 325) if 322 in tags else (273, 279)
    tags = {of_offsets: tuple(places), of_counts: tuple(len(piece or b"") for piece in pieces)} | tags
    entries = []
    for tag in sorted([*tags, *([347] if tables else [])]):
        long = tag in (273, 279, 324, 325, 330)
        values = tables if tag == 347 else struct.pack(f"{order}{len(tags[tag])}{'I' if long else 'H'}", *tags[tag])
        kind, count = (7, len(tables)) if tag == 347 else (4 if long else 3, len(tags[tag]))
        if len(values) > 4:
            place = len(body)
            body += values
            values = struct.pack(order + "I", place)
        entries.append(struct.pack(order + "HHI", tag, kind, count) + values.ljust(4, b"\0"))
    start = len(body)
    body[:8] = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    after = start + 2 + 12 * len(entries) + 4 if last else 0
    return (
        bytes(body + struct.pack(order + "H", len(entries)) + b"".join(entries) + struct.pack(order + "I", after))
        + last
    )


def strips(pixels: AnyArray, rows: int = SIDE) -> list[bytes]:
    return [pixels[top : top + rows].tobytes() for top in range(0, len(pixels), rows)]


def tiles(pixels: AnyArray, side: int = 32) -> list[bytes]:
    wide = np.zeros((64, 64, *pixels.shape[2:]), pixels.dtype)
    wide[:SIDE, :SIDE] = pixels
    return [wide[y : y + side, x : x + side].tobytes() for y in (0, side) for x in (0, side)]


def packed(bits: int) -> tuple[AnyArray, AnyArray]:
    """Grey of few bits, packed into bytes, and what it shows."""
    few = GREY >> (8 - bits)
    spread = np.unpackbits(few.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :].reshape(SIDE, -1)
    shown = np.rint(few.astype(float) * 255 / (2**bits - 1)).astype(np.uint8)
    return np.packbits(spread, axis=1), np.repeat(shown[:, :, None], 3, axis=2)


def wide(pixels: AnyArray, order: str) -> AnyArray:
    return (pixels.astype(np.uint16) * 257).astype(f"{order}u2")


def pack_bits(data: bytes) -> bytes:
    """Two bytes as they are, again and again: rows are packed each for itself."""
    return b"".join(b"\1" + data[at : at + 2] for at in range(0, len(data), 2))


CODERS: dict[int, Callable[[bytes], bytes]] = {1: bytes, 8: zlib.compress, 32946: zlib.compress, 32773: pack_bits}
ALPHA = np.where(np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1) % 2, 255, 0).astype(np.uint8)


def modes(order: str) -> dict[str, tuple[Tags, AnyArray, AnyArray]]:
    """Tags, samples and what they show, of each mode that is decoded."""
    over_white = np.where(ALPHA == 255, PICTURE, 255).astype(np.uint8)
    grey_over_white = np.where(ALPHA == 255, GREY_SHOWN, 255).astype(np.uint8)
    made: dict[str, tuple[Tags, AnyArray, AnyArray]] = {}
    for bits in (1, 2, 4, 8):
        samples, shown = (GREY, GREY_SHOWN) if bits == 8 else packed(bits)
        made[f"grey, {bits} bits"] = {258: (bits,)}, samples, shown
        made[f"grey, {bits} bits, white is zero"] = {258: (bits,), 262: (0,)}, ~samples, shown
        few = {320: tuple(v for _ in range(3) for v in (np.arange(2**bits) * 65535 // (2**bits - 1)).tolist())}
        made[f"palette of {bits} bits"] = {258: (bits,), 262: (3,)} | few, samples, shown
    made["grey, 16 bits"] = {258: (16,)}, wide(GREY, order), GREY_SHOWN
    for bits, samples_of in ((8, lambda pixels: pixels), (16, lambda pixels: wide(pixels, order))):
        rgb: Tags = {258: (bits,) * 3, 262: (2,), 277: (3,)}
        four: Tags = rgb | {258: (bits,) * 4, 277: (4,)}
        made[f"RGB, {bits} bits"] = rgb, samples_of(PICTURE), PICTURE
        made[f"RGB and another, {bits} bits"] = four | {338: (0,)}, samples_of(np.dstack([PICTURE, ALPHA])), PICTURE
        made[f"RGBA, {bits} bits"] = four | {338: (2,)}, samples_of(np.dstack([PICTURE, ALPHA])), over_white
        dark = np.where(ALPHA == 255, PICTURE, 0).astype(np.uint8)
        made[f"RGBA, multiplied, {bits} bits"] = four | {338: (1,)}, samples_of(np.dstack([dark, ALPHA])), over_white
        none = np.zeros_like(ALPHA)
        made[f"CMYK, {bits} bits"] = four | {262: (5,)}, samples_of(np.dstack([255 - PICTURE, none])), PICTURE
    two: Tags = {258: (8, 8), 277: (2,)}
    made["grey and another"] = two | {338: (0,)}, np.dstack([GREY, ALPHA]), GREY_SHOWN
    made["grey and alpha"] = two | {338: (2,)}, np.dstack([GREY, ALPHA]), grey_over_white
    return made


NAMES = list(modes("<"))


@pytest.mark.parametrize("compression", CODERS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_mode_that_is_decoded_shows_what_was_meant(order: str, compression: int) -> None:
    code = CODERS[compression]
    for name, (tags, samples, shown) in modes(order).items():
        files = {"strips": ({278: (20,)}, strips(samples, 20)), "one": ({}, strips(samples))}
        if samples.shape[1] == SIDE:
            files["tiles"] = {322: (32,), 323: (32,)}, tiles(samples)
        for kind, (parts, pieces) in files.items():
            data = tiff(tags | parts | {259: (compression,)}, [code(piece) for piece in pieces], order=order)
            assert np.array_equal(decode(data, PARAMS).pixels, shown), (name, kind)


@pytest.mark.parametrize("compression", [1, 8])
def test_planes_are_read_apart(compression: int) -> None:
    tags: Tags = {258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,), 259: (compression,)}
    planes = [PICTURE[:, :, channel] for channel in range(3)]
    for parts, cut in (({278: (20,)}, lambda plane: strips(plane, 20)), ({322: (32,), 323: (32,)}, tiles)):
        pieces = [CODERS[compression](piece) for plane in planes for piece in cut(np.ascontiguousarray(plane))]
        assert np.array_equal(decode(tiff(tags | parts, pieces), PARAMS).pixels, PICTURE)
        assert failure(tiff(tags | parts, [*pieces[:-1], None])) == CORRUPT
    assert failure(tiff(tags | {258: (16,) * 3}, [CODERS[compression](wide(p, "<").tobytes()) for p in planes])) == MODE


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["grey, 16 bits", "RGB, 8 bits", "RGB, 16 bits"])
def test_differences_are_added_up(name: str, order: str) -> None:
    tags, samples, shown = modes(order)[name]
    before = np.zeros_like(samples)
    before[:, 1:] = samples[:, :-1]
    differences = (samples - before).astype(samples.dtype)
    data = tiff(tags | {259: (8,), 317: (2,)}, [zlib.compress(differences.tobytes())], order=order)
    assert np.array_equal(decode(data, PARAMS).pixels, shown)


@pytest.mark.parametrize(
    ("compression", "allowed"), [("tiff_lzw", 0), ("tiff_adobe_deflate", 0), ("packbits", 0), ("jpeg", 10)]
)
def test_what_libtiff_writes_is_read(compression: str, allowed: int) -> None:
    for mode in ("RGB", "L"):
        image = Image.fromarray(small_astronaut(256)).convert(mode)
        data = encoded(image, "TIFF", compression=compression, tiffinfo={278: 64})
        assert len(Image.open(io.BytesIO(data)).tag_v2[273]) == 4  # type: ignore[attr-defined]
        difference = np.abs(decode(data, PARAMS).pixels.astype(int) - np.asarray(image.convert("RGB")))
        assert difference.mean() <= allowed


def signed(kind: str) -> AnyArray:
    return (GREY.astype(np.int64) * {"1": 1, "2": 257, "4": 16843009}[kind[-1]] - 2 ** (8 * int(kind[-1]) - 1)).astype(
        kind
    )


@pytest.mark.parametrize(
    ("tags", "samples"),
    [
        ({258: (16,), 262: (0,)}, 65535 - wide(GREY, "<")),
        ({258: (8,), 339: (2,)}, signed("<i1")),
        ({258: (16,), 339: (2,)}, signed("<i2")),
        ({258: (32,), 339: (2,)}, signed("<i4")),
        ({258: (32,)}, GREY.astype("<u4") * 16843009),
        ({258: (12,)}, np.zeros((SIDE, SIDE * 3 // 2), np.uint8)),
        ({258: (32,), 339: (3,)}, GREY.astype("<f4")),
        ({258: (8, 8, 8), 262: (8,), 277: (3,)}, PICTURE),  # Lab
        ({258: (8, 8, 8), 262: (6,), 277: (3,)}, PICTURE),  # YCbCr: how often colour is stored, each tells otherwise
        ({258: (8, 8, 8), 262: (6,), 277: (3,), 259: (8,)}, PICTURE),
        ({258: (8,), 266: (2,)}, GREY),
        ({258: (8, 8), 277: (2,), 338: (1,)}, np.dstack([GREY, ALPHA])),
        ({258: (8,) * 4, 262: (2,), 277: (4,)}, np.dstack([PICTURE, ALPHA])),  # and what is the fourth?
        ({258: (8,) * 3, 262: (2,), 277: (4,), 338: (0,)}, np.dstack([PICTURE, ALPHA])),
        ({258: (1,), 262: (1,), 259: (8,), 317: (2,)}, packed(1)[0]),
    ],
)
def test_what_is_read_as_something_else_is_not_decoded(tags: Tags, samples: AnyArray) -> None:
    code = CODERS[tags.get(259, (1,))[0]]
    assert failure(tiff(tags, [code(samples.tobytes())])) == MODE


@pytest.mark.parametrize("compression", CODERS)
def test_guarantee_16_a_strip_or_tile_that_is_missing_or_short_is_broken(compression: int) -> None:
    code = CODERS[compression]
    for parts, whole in (({278: (16,)}, strips(PICTURE, 16)), ({322: (32,), 323: (32,)}, tiles(PICTURE))):
        tags: Tags = {258: (8, 8, 8), 262: (2,), 277: (3,), 259: (compression,)} | parts
        pieces: list[bytes | None] = [code(piece) for piece in whole]
        assert np.array_equal(decode(tiff(tags, pieces), PARAMS).pixels, PICTURE)
        many = 278 in parts
        last = whole[-1]
        offsets, counts = (273, 279) if many else (324, 325)
        sizes = [len(piece or b"") for piece in pieces]
        for data in (
            tiff(tags, [*pieces[:-1], None]),
            tiff(tags, [pieces[0], None, *pieces[2:]]),
            tiff(tags, pieces[:-1]),
            tiff(tags, [*pieces, b"more"]),
            tiff(tags, [*pieces[:-1], code(last[: len(last) // 2])]),
            tiff(tags, [*pieces[:-1], code(last)[: sizes[-1] // 2]]),
            tiff(tags | {counts: (*sizes[:-1], 0)}, pieces),
            tiff(tags | {counts: (*sizes[:-1], 1_000_000)}, pieces),
            tiff(tags | {offsets: (8, 1_000_000, *range(8, 8 * (len(pieces) - 1), 8))}, pieces),
        ):
            assert failure(data)[0] == "broken"


def test_guarantee_16_a_stream_in_a_strip_comes_to_its_end_with_its_sum() -> None:
    tags: Tags = {258: (8, 8, 8), 262: (2,), 277: (3,), 259: (8,), 278: (40,)}
    first, last = (zlib.compress(strip) for strip in strips(PICTURE, 40))
    # The last strip may have all its rows, as some write it.
    padded = zlib.compress(strips(PICTURE, 40)[1] + bytes(32 * SIDE * 3))
    assert np.array_equal(decode(tiff(tags, [first, padded]), PARAMS).pixels, PICTURE)
    for damaged in (last[:-4] + bytes(4), last[:-4], last[: len(last) // 2] + bytes(len(last) // 2)):
        assert failure(tiff(tags, [first, damaged])) == CORRUPT
        assert failure(tiff(tags, [damaged, last])) == CORRUPT


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_guarantee_16_a_strip_that_was_filled_up_is_broken(compression: str, filling: bytes) -> None:
    data = encoded(Image.fromarray(small_astronaut(96)), "TIFF", compression=compression)
    tags = Image.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]
    at, count = tags[273][-1], tags[279][-1]
    assert decode(data, PARAMS).width == 96
    half = count // 2
    for hole in (half, 512):
        assert failure(data[: at + half] + filling * hole + data[at + half + hole :]) == CORRUPT


def in_jpeg(pieces: Sequence[bytes | None], *, rows: int = 24, photometric: int = 6, tables: bytes = b"") -> bytes:
    tags: Tags = {258: (8, 8, 8), 259: (7,), 262: (photometric,), 277: (3,), 278: (rows,), 530: (1, 1)}
    return tiff(tags, pieces, tables=tables)


def test_guarantee_16_each_strip_in_jpeg_is_held_to_what_a_jpeg_is() -> None:
    halves = [encoded(PICTURE[top : top + 24], "JPEG", quality=95, subsampling=0) for top in (0, 24)]
    whole = in_jpeg(halves)
    assert np.abs(decode(whole, PARAMS).pixels.astype(int) - PICTURE).mean() < 4
    last, end = halves[1], b"\xff\xd9"
    start = last.index(b"\xff\xda")
    half = last[: start + (len(last) - start) // 2]
    for damaged in (
        half, half + end, half + bytes(len(last) - len(half)), last[:-2], last[: -len(last) // 4] + end,
        half + b"\xff" * (len(last) - len(half)),
        encoded(PICTURE[24:40], "JPEG", subsampling=0),
        encoded(PICTURE[24:, :40], "JPEG", subsampling=0),
        encoded(PICTURE[24:, :, 1], "JPEG"),
    ):  # fmt: skip
        assert failure(in_jpeg([halves[0], damaged])) == CORRUPT
        assert failure(in_jpeg([damaged, halves[1]])) == CORRUPT
    assert failure(in_jpeg([halves[0], None])) == CORRUPT


def test_guarantee_16_the_tables_of_all_strips_are_put_before_each() -> None:
    """As libtiff writes it."""
    data = encoded(Image.fromarray(small_astronaut(256)), "TIFF", compression="jpeg", tiffinfo={278: 64})
    tags = Image.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]
    assert len(tags[347]) > 100
    for at, count in zip(tags[273], tags[279], strict=True):
        half = count // 2
        assert failure(data[: at + half] + bytes(count - half) + data[at + count :])[0] == "broken"
        assert failure(data[: at + half] + bytes(count - half - 2) + b"\xff\xd9" + data[at + count :])[0] == "broken"


@pytest.mark.parametrize("compression", [2, 3, 4, 6, 34925, 50000, 50001])
def test_guarantee_16_codings_of_which_nobody_can_tell_that_they_are_whole(compression: int) -> None:
    """Fax, and JPEG as it was before TIFF's second way of it."""
    assert failure(tiff({258: (1,), 259: (compression,)}, [bytes(500)])) == FORMAT


def directory(width: int, height: int) -> bytes:
    return struct.pack("<HHHIIHHIII", 2, 256, 4, 1, width, 257, 4, 1, height, 0)


def test_guarantee_16_the_small_copy_before_its_picture_is_not_taken_for_it() -> None:
    whole = strips(GREY)
    assert read_tiff(tiff({255: (2,)}, whole)).reduced
    assert not read_tiff(tiff({255: (1,)}, whole)).reduced
    for size, reduced in (((SIDE, SIDE), False), ((20, 30), False), ((SIDE, SIDE + 1), True), ((4_000, 3_000), True)):
        behind = tiff({}, whole, last=directory(*size))
        place = len(tiff({330: (0,)}, whole))
        below = tiff({330: (place,)}, whole) + directory(*size)
        place = len(tiff({330: (0, 0)}, whole))
        several = tiff({330: (place, place + 30)}, whole) + directory(1, 1) + directory(*size)
        for data in (behind, below, several):
            assert read_tiff(data).reduced == reduced
            if reduced:
                assert failure(data) == FORMAT
            else:
                assert np.array_equal(decode(data, PARAMS).pixels, GREY_SHOWN)


def test_guarantee_14_directories_that_lead_to_each_other_come_to_an_end() -> None:
    data = tiff({}, strips(GREY), last=directory(1, 1))
    circle = data[:-4] + struct.pack("<I", len(data) - 30)
    assert np.array_equal(decode(circle, PARAMS).pixels, GREY_SHOWN)
    many = tiff({}, strips(GREY), last=b"x")
    start = len(many) - 1
    chain = b"".join(directory(1, 1)[:-4] + struct.pack("<I", start + 30 * (index + 1)) for index in range(40_000))
    with pytest.raises(TooManyReads):
        read_tiff(many[:-1] + chain)
    assert failure(many[:-1] + chain) == ("too_large", "TOO_MANY_PARTS")


def test_pages_of_one_size_show_the_first() -> None:
    pages = [Image.fromarray(noise(30, 40)) for _ in range(3)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert np.array_equal(decode(data, PARAMS).pixels, np.asarray(pages[0]))
