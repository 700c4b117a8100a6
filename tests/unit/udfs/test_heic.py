"""HEIC, what phones write since 2017: decoded within the limits, and refused where it cannot be whole."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from tests.golden.support import noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, failure
from udfs import boxes, heic
from udfs.decode import decode
from udfs.kinds import HEAD_BYTES, image_kind
from udfs.limits import BadStructure, TooManyReads
from udfs.params import PipelineParams

pytestmark = pytest.mark.unit


def heic_of(image: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()


@cache
def single(side: int = 256) -> bytes:
    return heic_of(Image.fromarray(small_astronaut(side)), quality=80)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind + body


def full(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


def tile_of(data: bytes) -> tuple[bytes, bytes]:
    """The decoder's configuration and the coded data of a HEIC with one picture."""
    top = boxes.once(data, 0, len(data))
    parts = boxes.once(data, top[b"meta"][0] + 4, top[b"meta"][1])
    properties = boxes.once(data, *boxes.once(data, *parts[b"iprp"])[b"ipco"])
    ((_, payload),) = boxes.payloads(data, parts, {1})
    return data[slice(*properties[b"hvcC"])], payload


def grid(
    tiles: list[bytes],
    columns: int,
    size: tuple[int, int],
    side: int,
    references: list[int] | None = None,
    *,
    fill: bytes = b"",
    beside: bytes = b"",
) -> bytes:
    """A HEIC as phones write it: item 1 is a grid, and the tiles behind it are its parts.

    ``fill``: a unit at the end of each tile; ``beside``: further references.
    """
    configuration = tile_of(tiles[0])[0]
    coded = [tile_of(tile)[1] + fill for tile in tiles]
    ids = list(range(2, 2 + len(tiles)))
    references = references or ids
    rows = len(references) // columns
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    items = [(1, b"grid"), *((i, b"hvc1") for i in ids)]

    def meta(place: int) -> bytes:
        infos = [box(b"infe", b"\2\0\0\0", struct.pack(">HH", i, 0), kind, b"\0") for i, kind in items]
        locations = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(layout))]
        for i, data in zip(ids, coded, strict=True):
            locations.append(struct.pack(">HHHHII", i, 0, 0, 1, place, len(data)))
            place += len(data)
        extent = [full(b"ispe", struct.pack(">II", *wide)) for wide in (size, (side, side))]
        owned = [struct.pack(">HBB", 1, 1, 2), *(struct.pack(">HBBB", i, 2, 0x81, 3) for i in ids)]
        return full(
            b"meta",
            full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iinf", struct.pack(">H", len(items)), *infos),
            box(b"iloc", b"\1\0\0\0\x44\0", struct.pack(">H", len(items)), *locations),
            box(b"iprp", box(b"ipco", box(b"hvcC", configuration), *extent),
                full(b"ipma", struct.pack(">I", len(items)), *owned)),
            full(b"iref", box(b"dimg", struct.pack(f">HH{len(references)}H", 1, len(references), *references)), beside),
            box(b"idat", layout),
        )  # fmt: skip

    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *coded)


@cache
def of_tiles() -> bytes:
    tiles = [Image.fromarray(small_astronaut(256)).crop((x, y, x + 128, y + 128)) for y in (0, 128) for x in (0, 128)]
    return grid([heic_of(tile, quality=80) for tile in tiles], 2, (250, 200), 128)


def test_a_heic_has_the_pixels_of_its_picture() -> None:
    for data, shape in ((single(), (256, 256, 3)), (of_tiles(), (200, 250, 3))):
        assert image_kind(data) == image_kind(data[:HEAD_BYTES], len(data)) == "heif"
        decoded = decode(data, PARAMS)
        assert (decoded.pixels.shape, decoded.scale) == (shape, 1.0)
        expected = small_astronaut(256)[: shape[0], : shape[1]]
        assert np.abs(decoded.pixels.astype(int) - expected).mean() < 8
        assert np.array_equal(decode(data, PARAMS).pixels, decoded.pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(small_astronaut(128)).convert(mode)
    if mode == "RGBA":
        image.putalpha(0)
    pixels = decode(heic_of(image, quality=90), PARAMS).pixels
    assert pixels.shape == (128, 128, 3)
    assert mode == "L" or int(pixels.min()) >= 250  # transparent: white


def test_ten_bits_become_eight() -> None:
    wide = (np.asarray(small_astronaut(128)).astype(np.uint16) * 257).tobytes()
    stream = BytesIO()
    pillow_heif.from_bytes("RGB;16", (128, 128), wide).save(stream, quality=90)
    pixels = decode(stream.getvalue(), PARAMS).pixels
    assert np.abs(pixels.astype(int) - small_astronaut(128)).mean() < 8


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_a_heic_is_turned_once(orientation: int, turns: int) -> None:
    """By its own boxes; Exif says the same, and is not followed."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(heic_of(Image.fromarray(small_astronaut(256)[:200]), quality=90), PARAMS).pixels
    turned = decode(heic_of(Image.fromarray(small_astronaut(256)[:200]), quality=90, exif=exif.tobytes()), PARAMS)
    assert np.abs(turned.pixels.astype(int) - np.rot90(upright, turns)).mean() < 3
    assert (turned.height, turned.width) == turned.pixels.shape[:2]


@pytest.mark.parametrize("name", ["single", "tiles"])
def test_a_cut_heic_is_broken_and_so_is_one_filled_up_with_zeros(name: str) -> None:
    data = single() if name == "single" else of_tiles()
    start = data.index(b"mdat") + 4
    for part in (0.05, 0.5, 0.97):
        at = start + int(part * (len(data) - start))
        assert failure(data[:at]) == ("broken", "TRUNCATED")
        assert failure(data[:at] + bytes(len(data) - at)) == ("broken", "CORRUPT")
    middle = (start + len(data)) // 2
    assert failure(data[:middle] + bytes(512) + data[middle + 512 :]) == ("broken", "CORRUPT")
    for length in (12, 30, 100, 300):
        assert failure(data[:length])[0] == "broken"


def test_a_film_behind_a_heic_does_not_matter() -> None:
    motion = box(b"mpvd", noise(20, 20).tobytes())
    for behind in (motion, box(b"free", bytes(100))):
        assert np.array_equal(decode(single() + behind, PARAMS).pixels, decode(single(), PARAMS).pixels)


def test_guarantee_14_a_heic_is_held_to_the_size_of_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    data, tiles = bytearray(single()), of_tiles()
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 16, 16)
    assert heic.frame_pixels(bytes(data)) == 256 * 256
    assert heic.frame_pixels(tiles) == 4 * 128 * 128
    for name in ("_jpeg", "_rgb"):
        monkeypatch.setattr(f"udfs.decode.{name}", lambda *_: pytest.fail("decoded"))
    assert failure(bytes(data), PipelineParams(max_pixels=65_000)) == ("too_large", "TOO_MANY_PIXELS")
    assert failure(tiles, PipelineParams(max_decode_bytes=700_000)) == ("too_large", "TOO_MUCH_MEMORY")
    assert failure(tiles, PipelineParams(max_pixels=40_000)) == ("too_large", "TOO_MANY_PIXELS")


def test_a_film_with_a_picture_of_its_own_is_one() -> None:
    burst = single().replace(b"ftypheic", b"ftypmsf1", 1)
    assert image_kind(burst) == "heif"
    assert np.array_equal(decode(burst, PARAMS).pixels, decode(single(), PARAMS).pixels)


def test_each_item_counts_by_its_own_parameters() -> None:
    """A phone's file has 48 tiles, and a gain map or a thumbnail that is larger than any of them."""
    data = of_tiles()
    other = tile_of(single())[0]
    at = data.index(b"ispe") - 4
    assert heic.frame_pixels(data) == 4 * 128 * 128 < 256 * 256 * 4
    # Behind the others, so that the places of properties stay; and all boxes about it grow.
    end = data.index(b"ipma") - 4
    grown = bytearray(data[:end] + box(b"hvcC", other) + data[end:])
    for kind in (b"ipco", b"iprp", b"meta"):
        place = grown.index(kind) - 4
        size = int.from_bytes(grown[place : place + 4], "big") + len(other) + 8
        grown[place : place + 4] = size.to_bytes(4, "big")
    assert at < end
    parts = heic._parts(bytes(grown))
    assert set(heic._parameters(bytes(grown), parts).values()) == {(4, 128 * 128)}


def test_guarantee_14_a_tile_is_laid_out_once() -> None:
    tile = heic_of(Image.fromarray(small_astronaut(128)))
    many = grid([tile], 100, (12_800, 7_000), 128, references=[2] * 5_500)
    with pytest.raises(TooManyReads):
        heic.frame_pixels(many)
    assert failure(many)[0] in ("broken", "too_large")  # libheif may say so first, and has decoded nothing
    wide = bytearray(of_tiles())
    at = wide.index(struct.pack(">BBBBHH", 0, 0, 1, 1, 250, 200)) + 4
    wide[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    assert heic.frame_pixels(bytes(wide)) == 3_600_000_000
    assert failure(bytes(wide))[0] in ("broken", "too_large")


def test_films_and_constructions_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_jpeg", "_rgb"):
        monkeypatch.setattr(f"udfs.decode.{name}", lambda *_: pytest.fail("decoded"))
    film = single().replace(b"ftypheic", b"ftyphevc", 1).replace(b"meta", b"moov", 1)
    assert image_kind(film) == "heif"
    assert failure(film) == ("broken", "UNSUPPORTED_FORMAT")
    assert failure(of_tiles().replace(b"grid", b"iovl", 1)) == ("broken", "UNSUPPORTED_FORMAT")


def test_guarantee_14_whatever_a_heic_says_it_is_counted_or_refused() -> None:
    rng = np.random.default_rng(7)
    for data in (single(), of_tiles()):
        head = data.index(b"mdat")
        for _ in range(1_500):
            changed = bytearray(data)
            for place in rng.integers(0, head + 40, 3):
                changed[place] = int(rng.choice([0, 1, 2, 4, 15, 68, 127, 128, 255]))
            with contextlib.suppress(BadStructure, TooManyReads):
                assert heic.frame_pixels(bytes(changed)) >= 0
        for length in range(0, head, 7):
            with pytest.raises(BadStructure):
                heic.frame_pixels(data[:length])


def test_a_container_is_known_by_the_brands_that_follow() -> None:
    heif, avif = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"
    assert (image_kind(heif), image_kind(avif)) == ("heif", "avif")
    # Both: Pillow's own reader is the one that was there first.
    assert image_kind(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifheicmiaf") == "avif"
    assert image_kind(b"\0\0\0\x18ftypisom\0\0\0\0heicavif") is None


@pytest.mark.parametrize("brand", [b"miaf", b"MiHE", b"MiHB", b"mif2", b"avci", b"1pic"])
def test_a_brand_that_the_decoders_do_not_know_is_none_the_less_a_picture(brand: bytes) -> None:
    """The others that a file names tell what it is; it was no image."""
    data = single().replace(b"ftypheic", b"ftyp" + brand, 1)
    assert image_kind(data) == "heif"
    assert np.array_equal(decode(data, PARAMS).pixels, decode(single(), PARAMS).pixels)
    assert image_kind(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1avifmiaf") == "avif"
    assert image_kind(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0isommp42") is None
    # Coded in another way, which no decoder here knows.
    assert image_kind(b"\0\0\0\x18ftypavci\0\0\0\0mif1avci") is None


@pytest.mark.parametrize("width", [64, 101, 1000])
def test_the_size_of_a_frame_is_read_from_its_parameters(width: int) -> None:
    data = heic_of(Image.new("RGB", (width, 67)))
    assert width * 67 <= heic.frame_pixels(data) <= (width + 63) * (67 + 63)


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def place_of(data: bytes, item: int) -> int:
    """Where `iloc` says the item's place and length (4 bytes each), as `grid` writes it."""
    return data.index(b"iloc") + 4 + 8 + 16 * (item - 1) + 8


def coded_at(data: bytes, item: int) -> int:
    return struct.unpack_from(">I", data, place_of(data, item))[0]


def first_slice(data: bytes, item: int) -> int:
    """Where the header of an item's first slice is."""
    at = coded_at(data, item)
    while data[at + 4] >> 1 > 31:
        at += 4 + struct.unpack_from(">I", data, at)[0]
    return at + 4


LAYOUT = struct.pack(">BBBBHH", 0, 0, 1, 1, 250, 200)


def without_a_place() -> bytes:
    data = of_tiles()
    return changed(data, place_of(data, 4) - 8, struct.pack(">H", 77))


def of_another_kind() -> bytes:
    data = of_tiles()
    return changed(data, data.index(b"hvc1", data.index(b"hvc1") + 1), b"jpeg")


def laid_out(*values: int, size: tuple[int, int] = (250, 200)) -> bytes:
    data = of_tiles()
    return changed(data, data.index(LAYOUT), struct.pack(">BBBBHH", *values, *size))


def with_another_slice(header: bytes) -> bytes:
    data = of_tiles()
    return changed(data, first_slice(data, 3), header)


def at_the_place_of_another() -> bytes:
    data = of_tiles()
    other = data[place_of(data, 2) : place_of(data, 2) + 8]
    return changed(data, place_of(data, 5), other)


def without_a_configuration() -> bytes:
    data = of_tiles()
    return data.replace(struct.pack(">HBBB", 5, 2, 0x81, 3), struct.pack(">HBBB", 5, 2, 0x83, 3))


def with_smaller_tiles() -> bytes:
    """They say that they are smaller than they are coded."""
    return of_tiles().replace(struct.pack(">II", 128, 128), struct.pack(">II", 125, 100))


def primary(data: bytes, item: int) -> bytes:
    return changed(data, data.index(b"pitm") + 8, struct.pack(">H", item))


@pytest.mark.parametrize(
    "make",
    [
        without_a_place,
        of_another_kind,
        at_the_place_of_another,
        without_a_configuration,
        with_smaller_tiles,
        lambda: laid_out(0, 0, 5, 1),
        lambda: laid_out(0, 0, 0, 1),
        lambda: laid_out(1, 0, 1, 1),
        lambda: laid_out(0, 0, 1, 1, size=(250, 100)),
        lambda: laid_out(0, 0, 1, 1, size=(300, 200)),
        lambda: with_another_slice(b"\2\1"),  # a picture that needs another
        lambda: with_another_slice(b"\x2e\1"),  # reserved: passed over
        lambda: with_another_slice(b"\x28\2"),  # another time
        lambda: primary(of_tiles(), 3),
        lambda: of_tiles().replace(b"dimg", b"dimf"),
    ],
)
def test_guarantee_16_a_grid_that_lacks_a_tile_is_broken(make: Callable[[], bytes]) -> None:
    """libheif leaves it unpainted, or gives one tile as the picture: who stands in the others is not seen."""
    data = make()
    assert data != of_tiles()
    assert failure(data)[0] in ("broken", "too_large")
    with pytest.raises((BadStructure, TooManyReads)):
        heic.shown_size(data)


def test_guarantee_16_a_picture_of_another_size_than_it_says_is_broken() -> None:
    data = single()
    for size in ((16, 16), (256, 128), (512, 256)):
        small = changed(data, data.index(b"ispe") + 8, struct.pack(">II", *size))
        assert failure(small)[0] == "broken"
        with pytest.raises(BadStructure):
            heic.shown_size(small)


def test_guarantee_16_what_belongs_to_a_picture_is_not_taken_for_it() -> None:
    image = Image.fromarray(small_astronaut(128))
    image.putalpha(200)
    data = heic_of(image, quality=90)
    assert decode(data, PARAMS).pixels.shape == (128, 128, 3)
    assert failure(primary(data, 2))[0] == "broken"


@pytest.mark.parametrize("size", [(64, 64), (101, 201), (99, 64), (1000, 67), (3, 5)])
def test_sound_ones_of_odd_sizes_are_whole(size: tuple[int, int]) -> None:
    for exif in (None, 6, 3):
        turned = Image.Exif()
        turned[0x0112] = exif or 1
        data = heic_of(Image.fromarray(noise(size[1], size[0])), exif=turned.tobytes())
        shown = size[::-1] if exif == 6 else size
        assert heic.shown_size(data) == shown
        assert decode(data, PARAMS).pixels.shape == (shown[1], shown[0], 3)


def test_guarantee_16_a_hole_of_ones_is_seen() -> None:
    for data in (single(), of_tiles()):
        start = data.index(b"mdat") + 4
        for at in (start + 1_000, len(data) - 700):
            assert failure(changed(data, at, b"\xff" * 512)) == ("broken", "CORRUPT")
        assert failure(changed(data, len(data) - 900, b"\xff" * 900)) == ("broken", "CORRUPT")


def test_what_cameras_and_phones_write_beside_a_picture_is_no_damage() -> None:
    tiles = [heic_of(Image.fromarray(small_astronaut(128)), quality=80)] * 2
    make = partial(grid, tiles, 2, (250, 120), 128)
    # A Canon fills an item up by a unit of ones, which is for that (H.265, 7.3.2.8).
    unit = b"\x4c\x01" + b"\xff" * 500 + b"\x80"
    assert decode(make(fill=struct.pack(">I", len(unit)) + unit), PARAMS).pixels.shape == (120, 250, 3)
    # A tone map is derived from the picture; and a picture may be noted as its thumbnail's, in place of that as its.
    for kind, item, other in ((b"dimg", 9, 1), (b"thmb", 1, 2)):
        assert heic.shown_size(make(beside=box(kind, struct.pack(">HHH", item, 1, other)))) == (250, 120)
